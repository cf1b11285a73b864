{{- /* Replicas of what is of `kind` and called `name`, by a metric: `threshold` of it for each replica. `queues` are those of
a worker, separated by commas, "" for what has none. */}}
{{- define "tessera.scaler" }}
---
{{- if eq .root.Values.autoscaling.kind "keda" }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .name }}
  labels:
    {{- include "tessera.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ .name }}}
  minReplicaCount: {{ .scaling.minReplicas }}
  maxReplicaCount: {{ .scaling.maxReplicas }}
  cooldownPeriod: 300
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {scaleDown: {stabilizationWindowSeconds: 300}}
  triggers:
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: {{ .root.Values.autoscaling.prometheus | quote }}
        query: {{ tpl .scaling.query (dict "Release" .root.Release "name" .name "api" (printf "%s-api" (include "tessera.name" .root)) "queues" (replace "," "|" (nospace .queues))) | quote }}
        threshold: {{ .threshold | toString | quote }}
{{- else }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  labels:
    {{- include "tessera.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ .name }}}
  minReplicas: {{ .scaling.minReplicas }}
  maxReplicas: {{ .scaling.maxReplicas }}
  behavior: {scaleDown: {stabilizationWindowSeconds: 300}}
  metrics:
    - type: External
      external:
        metric:
          name: {{ .metric }}
          {{- if .queues }}
          selector:
            matchLabels: {lane: main}
            matchExpressions:
              - {key: state, operator: In, values: [queued, retrying]}
              - {key: queue, operator: In, values: {{ splitList "," (nospace .queues) | toJson }}}
          {{- end }}
        target: {type: AverageValue, averageValue: {{ .threshold | toString | quote }}}
{{- end }}
{{- end }}
