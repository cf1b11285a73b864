"""The English word lists of the answerer: where a sentence cannot end, and which words carry no content."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", text))


ABBREVIATIONS = _words(
    """mr mrs ms dr prof rev hon gen col capt lt sgt sen rep gov st mt ft messrs mme vs viz cf e.g i.e eg ie al approx
    ca c fig figs eq eqs sec secs ch vol vols no nos pp p para art dept est ext tel incl excl max min resp jan feb mar
    apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri"""
)
"""A full stop after one of these hardly ever ends a sentence."""

CLOSING_ABBREVIATIONS = _words(
    "inc ltd co corp plc llc bros jr sr esq etc a.m p.m am pm u.s u.k u.n e.u ph.d b.a m.a d.c"
)
"""A full stop after one of these ends a sentence when a word that often begins one follows."""

STARTERS = _words(
    """a an the this that these those it its he she they we you i his her their our your my in on at by for from to
    with as if when while after before during since although though however but and or so then there here what who how
    why where which no not all each every some many most several both such one two three another other also because
    until unless under over between within without according finally first second third please note"""
)
"""Words that often begin a sentence."""

STOP_WORDS = _words(
    """a an the this that these those it its he him his she her hers they them their theirs we us our ours you your
    yours i me my mine one ones oneself itself himself herself themselves
    am is are was were be been being do does did done doing have has had having can could may might must shall should
    will would ought need dare let lets get gets got
    and or but nor so yet if then than as of at by for from in into on onto off out over under to toward towards up
    upon with within without about above across after again against along among around before behind below beneath
    beside besides between beyond during except inside near outside per since through throughout till until via while
    who whom whose what which when where why how whether because although though however also too very just only even
    still ever never not no none any some all both each every either neither such other another same own more most
    much many few less least lot lots there here now thus hence
    s t d ll m re ve don doesn didn isn aren wasn weren won wouldn couldn shouldn hasn haven hadn
    please tell give show say says said know explain describe mention name list find provide want like help
    something anything thing things kind type sort"""
)
"""Words of a question that its answer need not contain."""
