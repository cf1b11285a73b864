{{- define "tessera.name" -}}
{{- if contains "tessera" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-tessera" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tessera.selector" -}}
app.kubernetes.io/name: tessera
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tessera.labels" -}}
{{ include "tessera.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "tessera.repository" -}}
{{ required "image.repository: name where you pushed the image that the Dockerfile makes" .repository }}
{{- end }}

{{- /* The image of a process: `image` where it names a repository of its own, else that of every process. */}}
{{- define "tessera.image" -}}
{{- $image := ternary .image .root.Values.image (not (empty (get (default dict .image) "repository"))) }}
{{- if $image.digest }}{{ include "tessera.repository" $image }}@{{ $image.digest }}{{ else }}{{ include "tessera.repository" $image }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The address of every pod of vLLM that there may be, as JSON; one that is not there is left alone. */}}
{{- define "tessera.vllmAddresses" -}}
{{- $vllm := printf "%s-vllm" (include "tessera.name" .) }}
{{- $scaling := .Values.vllm.autoscaling }}
{{- $addresses := list }}
{{- range $number := until (int (ternary $scaling.maxReplicas .Values.vllm.replicas $scaling.enabled)) }}
{{- $addresses = append $addresses (printf "http://%s-%d.%s:8000/v1" $vllm $number $vllm) }}
{{- end }}
{{- toJson $addresses }}
{{- end }}

{{- define "tessera.secretName" -}}
{{- required "existingSecret: name a Secret whose keys are the settings that are secret (see values.yaml)" .Values.existingSecret }}
{{- end }}

{{- /* Secrets of whoever reads and writes the stores, where the servers ask for them. */}}
{{- define "tessera.secretsOfStores" -}}
TESSERA_REDIS_CACHE_URL TESSERA_MILVUS_TOKEN TESSERA_MILVUS_ENDPOINTS TESSERA_LEXICAL_PASSWORD TESSERA_OBJECTS_SECRET_ACCESS_KEY TESSERA_EMBED_MODELS
{{- end }}

{{- /* Environment of a container from the Secret: `needed` must be in it, `optional` may. */}}
{{- define "tessera.secretEnv" -}}
{{- $secret := include "tessera.secretName" .root }}
{{- range .needed }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ . }}}}
{{- end }}
{{- range uniq (concat .optional .root.Values.secretSettings) }}
{{- if not (has . $.needed) }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end }}
{{- end }}

{{- /* Environment of a container from settings of its own. */}}
{{- define "tessera.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "tessera.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tessera.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What every pod of Tessera's own has, beside its containers. */}}
{{- define "tessera.pod" -}}
automountServiceAccountToken: false
# Else a release called tessera gets the address of its Service as TESSERA_API_PORT.
enableServiceLinks: false
securityContext:
  {{- include "tessera.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ .root.Values.topologyKey }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tessera.selector" . | nindent 8 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ .root.Values.tmpSize }}}
  {{- with concat .root.Values.extraVolumes (default list .extraVolumes) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Where a container has them. */}}
{{- define "tessera.mounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- with concat .root.Values.extraVolumeMounts (default list .extraVolumeMounts) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tessera.sharedSettings" -}}
envFrom:
  - configMapRef: {name: {{ include "tessera.name" .root }}}
{{- end }}

{{- define "tessera.processName" -}}
- name: TESSERA_PROCESS_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}

{{- /* The process touches the file every three seconds as long as its event loop gets round. The volume it lies in outlives
a container that is killed: a file from before is removed, and one that is old does not count. `startupSeconds` is how long
it may take until it is there. */}}
{{- define "tessera.aliveProbes" -}}
lifecycle:
  postStart: {exec: {command: [rm, -f, /tmp/alive]}}
startupProbe:
  exec: {command: [sh, -c, 'test $(( $(date +%s) - $(stat -c %Y /tmp/alive) )) -lt 8']}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div (add (int .startupSeconds) 1) 2 }}
livenessProbe:
  exec: {command: [sh, -c, 'test $(( $(date +%s) - $(stat -c %Y /tmp/alive) )) -lt 60']}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
