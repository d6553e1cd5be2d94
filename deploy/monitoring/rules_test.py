#!/usr/bin/env python3
"""Writes promtool's tests: each alert fires on its bad series and is silent on its good one.

Usage: rules_test.py RULES >rules_test.yml. Fails if an alert has no case.
"""

import sys

import yaml

# alert: (bad series, good series, minutes until it fires, labels that it then has)
SERVER = 'job="kms-server", instance="a"'
BOT = 'job="kms-bot", instance="b"'


def counted(event, labels=""):
    name = f'kms_alarms_total{{event="{event}", {labels}{SERVER}}}'
    return {name: "0x10 1x30"}, {name: "0x40"}


def http(bad, good):
    return {
        f'kms_http_requests_total{{status="500", {SERVER}}}': bad,
        f'kms_http_requests_total{{status="200", {SERVER}}}': good,
    }


def buckets(slow):
    name = f'kms_http_request_duration_seconds_bucket{{route="/v1/accounts", {SERVER}'
    return {
        f'{name}, le="5"}}': "0+90x40" if slow else "0+100x40",
        f'{name}, le="10"}}': "0+100x40",
        f'{name}, le="+Inf"}}': "0+100x40",
    }


def gauge(name, bad, good, labels=""):
    series = f"{name}{{{labels}{SERVER}}}"
    return {series: f"{bad}x40"}, {series: f"{good}x40"}


CASES = {
    "KmsServerDown": gauge("up", 0, 1),
    "KmsDependencyDown": gauge("kms_dependency_up", 0, 1, 'dependency="database", '),
    "KmsClockSkew": gauge("kms_clock_skew_seconds", 1.5, 0.2),
    "KmsKeyDoesNotWork": gauge("kms_key_works", 0, 1, 'key="kms-1", '),
    "KmsWalletNotRecoverable": gauge("kms_wallets_not_recoverable", 1, 0),
    "KmsIntrusion": counted("integrity_alarm"),
    "KmsRecoveries": counted("recovery_breaker"),
    "KmsChainContradiction": counted("finalized_block_removed", 'chain="1", '),
    "KmsPanic": counted("panic"),
    "KmsEventRepeats": (
        {f'kms_alarms_total{{event="transfer_delayed", {SERVER}}}': "0+2x40"},
        {f'kms_alarms_total{{event="transfer_delayed", {SERVER}}}': "0x20 1x40"},
    ),
    "KmsErrors": (http("0+10x40", "0+90x40"), http("0+1x40", "0+99x40")),
    "KmsSlow": (buckets(True), buckets(False)),
    "KmsTransfersWait": gauge("kms_transfer_oldest_seconds", 4000, 60, 'chain="1", state="mined", '),
    "KmsPaymentsStopped": counted("payment_policy_failed", 'chain="1", '),
    "KmsPaymentsPaused": gauge("kms_payments_paused", 1, 0, 'chain="1", '),
    "KmsTokenDisabled": gauge("kms_token_enabled", 0, 1, 'chain="1", token="USDC", '),
    "KmsChainStands": gauge("kms_chain_head_age_seconds", 700, 12, 'chain="1", '),
    "KmsDepositsLate": gauge("kms_deposit_lag_seconds", 4000, 900, 'chain="1", '),
    "KmsMailLate": gauge("kms_mail_oldest_seconds", 400, 10, 'lane="send_urgent_mail", '),
    "KmsCheckpointsOld": (
        {f'kms_worker_last_success_timestamp_seconds{{worker="write_checkpoints", {SERVER}}}': "0x60"},
        {f'kms_worker_last_success_timestamp_seconds{{worker="write_checkpoints", {SERVER}}}': "0+60x60"},
    ),
    "KmsWorkerFails": (
        {f'kms_worker_failures_total{{worker="clean", {SERVER}}}': "0+1x60"},
        {f'kms_worker_failures_total{{worker="clean", {SERVER}}}': "0x20 1x40"},
    ),
    "KmsCertificateExpires": gauge("kms_certificate_expires_timestamp_seconds", 864000, 8640000),
    "KmsTokenExpires": counted("token_expires_soon"),
    "KmsBotDown": ({f"up{{{BOT}}}": "0x40"}, {f"up{{{BOT}}}": "1x40"}),
    "KmsNoticesLate": gauge("kms_bot_oldest_notice_seconds", 400, 1),
    "KmsTelegramLimits": gauge("kms_bot_telegram_limited_total", "0+20", "0+1"),
}
# When each is asked: for some, what fires has ended again later.
AT = {"KmsCheckpointsOld": "35m"}


def main(path):
    rules = yaml.safe_load(open(path))["groups"][0]["rules"]
    names = [rule["alert"] for rule in rules]
    assert sorted(names) == sorted(CASES), set(names) ^ set(CASES)
    tests = []
    for rule in rules:
        name = rule["alert"]
        bad, good = CASES[name]
        for series, fires in [(bad, True), (good, False)]:
            at = AT.get(name, "20m")
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is silent'}",
                    "interval": "1m",
                    "input_series": [{"series": key, "values": value} for key, value in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                            "eval_time": at,
                            "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}],
                        }
                    ],
                }
            )
    yaml.safe_dump(
        {"rule_files": [path], "evaluation_interval": "1m", "tests": tests}, sys.stdout, sort_keys=False
    )


main(sys.argv[1])
