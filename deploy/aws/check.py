#!/usr/bin/env python3
"""Lints the templates, deploys them to moto, and checks what must be true of them.

Usage: check.py [--mistakes] [KMS_SERVER]. With the path of the program, its configuration is parsed
with exactly the environment of the task, and its checkpoints go to the bucket with exactly the
permissions of the roles (checkpoints.py). `--mistakes` plants mistakes, one at a time, and fails if
one of them is not found. Needs cfn-lint, moto and boto3.
"""

import collections
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import yaml

import checkpoints

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STACKS = ["network", "data", "service", "alarms"]

# What each stack has, so that nothing disappears unnoticed.
EXPECTED = {
    "network": """
        EC2::VPC EC2::InternetGateway EC2::VPCGatewayAttachment 6*EC2::Subnet 3*EC2::RouteTable
        2*EC2::Route 6*EC2::SubnetRouteTableAssociation EC2::EIP EC2::NatGateway
        5*EC2::SecurityGroup 5*EC2::SecurityGroupIngress 4*EC2::VPCEndpoint""",
    "data": """
        2*KMS::Key KMS::Alias RDS::DBSubnetGroup RDS::DBParameterGroup RDS::DBInstance
        4*SecretsManager::Secret S3::Bucket S3::BucketPolicy IAM::ManagedPolicy IAM::Role""",
    "service": """
        ECS::Cluster 2*Logs::LogGroup 5*IAM::Role 3*ECS::TaskDefinition
        2*ElasticLoadBalancingV2::LoadBalancer 2*ElasticLoadBalancingV2::TargetGroup
        2*ElasticLoadBalancingV2::Listener 2*ECS::Service""",
    "alarms": """
        SNS::Topic KMS::Key SNS::TopicPolicy 6*Logs::MetricFilter 6*CloudWatch::Alarm Events::Rule""",
}

# Types that moto does not make.
SKIPPED = {f"AWS::{name}" for name in """
    SecretsManager::Secret SNS::TopicPolicy Logs::MetricFilter CloudWatch::Alarm
    S3::BucketPolicy""".split()}

PARAMETERS = {
    "service": {
        "ServerImage": "registry.example/kms-server@sha256:" + "a" * 64,
        "BotImage": "registry.example/kms-bot@sha256:" + "b" * 64,
        "KmsPublicKey": "PEM",
        "BotTokenHash": "c" * 64,
        "ChainId": "1",
        "ChainName": "Ethereum",
        "PublicUrl": "https://kms.example.org",
        "MailFrom": "Wallet <wallet@example.org>",
    },
    "alarms": {"Email": "operator@example.org"},
}

# moto does not know this attribute, fails on a reference to a parameter group, has no
# listeners of network load balancers, and makes no secrets.
MOTO_LACKS = {
    "!GetAtt Database.DbiResourceId": "db-MOTO",
    "      DBParameterGroupName: !Ref DatabaseParameters\n": "",
    "      Protocol: TCP\n      DefaultActions": "      Protocol: HTTP\n      DefaultActions",
    **{
        f'{{ "Fn::ImportValue": !Sub "${{Name}}-{name}" }}': f"arn:aws:secretsmanager:eu-central-1:1:secret:{name}"
        for name in ["server-keys", "server-secrets", "bot-secrets", "owner-secrets"]
    },
}

# Of secrets, by their key in the JSON: values that the program can parse.
SECRETS = {
    "tls_certificate": "PEM",
    "tls_key": "PEM",
    "key_database_url": "mongodb+srv://kms:secret@cluster.example/",
    "rpc_urls": "https://a.example https://b.example",
    "mail_url": "smtps://user:secret@mail.example.org",
    "migrate_url": "postgres://kms_owner@db.example/kms?sslmode=verify-full",
    **{f: "1:" + "1" * 64 for f in ["pepper", "contact", "row", "audit", "codes", "checkpoint"]},
}

# Mistakes: file, text, and what replaces it.
MISTAKES = [
    ("service", "HealthCheckProtocol: HTTP", "HealthCheckProtocol: HTTPS"),
    ("service", "HealthCheckPath: /readyz", "HealthCheckPath: /healthz"),
    ("service", "StopTimeout: 110", "StopTimeout: 80"),
    ("service", "MaximumPercent: 100", "MaximumPercent: 200"),
    ("service", 'AllowedPattern: ".+@sha256:[0-9a-f]{64}"', 'AllowedPattern: ".+"'),
    ("service", "KMS_SERVER__DATABASE__AUTH", "KMS_SERVER__DATABASE__AUTHENTICATION"),
    ("service", "            - Name: KMS_SERVER__SERVER_KEYS__ROW\n", "            - Name: KMS_SERVER__SERVER_KEYS__PEPPER\n"),
    ("service", "Action: kms:GetPublicKey", "Action: kms:*"),
    ("service", "Action: s3:PutObject\n", "Action: [s3:PutObject, s3:DeleteObject]\n"),
    ("service", "${Bucket}/checkpoints/*", "${Bucket}/*"),
    ("service", "Name: KMS_SERVER__PROFILE, Value: production", "Name: KMS_SERVER__PROFILE, Value: development"),
    ("data", "Mode: COMPLIANCE", "Mode: GOVERNANCE"),
    ("data", "BlockPublicPolicy: true", "BlockPublicPolicy: false"),
    ("data", "Sid: NeverOverwritten\n            Effect: Deny", "Sid: NeverOverwritten\n            Effect: Allow"),
    ("data", "Action: [s3:PutBucketObjectLockConfiguration, s3:PutObjectRetention]", "Action: s3:PutObjectRetention"),
    ("data", "Condition: { Bool: { aws:SecureTransport", "Condition: { Bool: { aws:ViaAWSService"),
    ("data", "PubliclyAccessible: false", "PubliclyAccessible: true"),
    ("data", "MultiRegion: true", "MultiRegion: false"),
    ("data", "StringNotEquals:\n", "StringEquals:\n"),
    ("alarms", '"integrity_alarm"', '"integrity_alert"'),
    ("alarms", "DeleteBucketPolicy", "DeleteBucketWebsite"),
    ("network", "      FromPort: 8444\n      ToPort: 8444\n      SourceSecurityGroupId: !Ref BalancerGroup",
     "      FromPort: 8443\n      ToPort: 8443\n      SourceSecurityGroupId: !Ref BalancerGroup"),
]


class Tagged(yaml.SafeLoader):
    """Reads `!Ref x` as {"Ref": "x"}, and other short forms alike."""


def tagged(loader, suffix, node):
    construct = {
        yaml.ScalarNode: loader.construct_scalar,
        yaml.SequenceNode: loader.construct_sequence,
        yaml.MappingNode: loader.construct_mapping,
    }[type(node)]
    arguments = {} if isinstance(node, yaml.ScalarNode) else {"deep": True}
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": construct(node, **arguments)}


Tagged.add_multi_constructor("!", tagged)


def types(text):
    """A list of types, with how many of each."""
    counts = {}
    for word in text.split():
        count, _, name = word.rpartition("*")
        counts[f"AWS::{name}"] = int(count or 1)
    return counts


def problems_of(folder):
    """What is wrong with the templates of a folder, by their own text."""
    problems = []

    def expect(is_true, what):
        if not is_true:
            problems.append(what)

    templates = {name: yaml.load((folder / f"{name}.yaml").read_text(), Tagged) for name in STACKS}
    for name, template in templates.items():
        counts = {}
        for resource in template["Resources"].values():
            counts[resource["Type"]] = counts.get(resource["Type"], 0) + 1
        expect(counts == types(EXPECTED[name]), f"{name}: other resources: {counts}")
    of = lambda stack, name: templates[stack]["Resources"][name]
    properties = lambda stack, name: of(stack, name)["Properties"]

    key = properties("data", "KmsKey")
    expect(key["KeySpec"] == "RSA_4096" and key["KeyUsage"] == "ENCRYPT_DECRYPT", "KMS key: kind")
    expect(key["MultiRegion"] is True, "KMS key: cannot be replicated later")
    for stack, name in [("data", n) for n in ["KmsKey", "StorageKey", "ServerKeys", "OwnerSecrets"]]:
        expect(of(stack, name).get("DeletionPolicy") == "Retain", f"{name} is deleted with its stack")
    deny = [s for s in key["KeyPolicy"]["Statement"] if s["Effect"] == "Deny"]
    expect(
        any("aws:PrincipalArn" in s["Condition"].get("StringNotEquals", {}) for s in deny),
        "KMS key: others than the server can decrypt",
    )
    for statement in key["KeyPolicy"]["Statement"]:
        if statement["Effect"] == "Allow" and "kms:Decrypt" in statement["Action"]:
            condition = statement.get("Condition", {}).get("StringEquals", {})
            expect(condition.get("kms:EncryptionAlgorithm") == "RSAES_OAEP_SHA_256", "KMS key: algorithm")
    database = properties("data", "Database")
    for setting in ["MultiAZ", "StorageEncrypted", "DeletionProtection", "EnableIAMDatabaseAuthentication"]:
        expect(database.get(setting) is True, f"Database: {setting}")
    expect(database["PubliclyAccessible"] is False, "Database: public")
    expect(database["BackupRetentionPeriod"] == 35, "Database: backups")
    parameters = properties("data", "DatabaseParameters")["Parameters"]
    expect(parameters["rds.force_ssl"] == "1", "Database: without TLS")
    expect(parameters["synchronous_commit"] == "on", "Database: not durable")

    bucket = properties("data", "Checkpoints")
    expect(of("data", "Checkpoints").get("DeletionPolicy") == "Retain", "Checkpoints are deleted with their stack")
    expect(bucket["ObjectLockEnabled"] is True, "Checkpoints: without object lock")
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    expect(retention["Mode"] == "COMPLIANCE", "Checkpoints: an administrator can delete them")
    expect(bucket["VersioningConfiguration"]["Status"] == "Enabled", "Checkpoints: without versions")
    expect(all(bucket["PublicAccessBlockConfiguration"].values()), "Checkpoints: public")
    denied = {s["Sid"]: s for s in properties("data", "CheckpointsPolicy")["PolicyDocument"]["Statement"]}
    expect(all(s["Effect"] == "Deny" and s["Principal"] == "*" for s in denied.values()), "Checkpoints: policy")
    tls = denied["TlsAlone"]["Condition"]
    expect(tls == {"Bool": {"aws:SecureTransport": "false"}}, "Checkpoints: without TLS")
    once = denied["NeverOverwritten"]["Condition"]
    expect(once == {"Null": {"s3:if-none-match": "true"}}, "Checkpoints: can be overwritten")
    expect("s3:DeleteObject" in denied["NeverDeleted"]["Action"], "Checkpoints: can be hidden")
    expect("s3:PutBucketObjectLockConfiguration" in denied["LockStays"]["Action"], "Checkpoints: the lock can be removed")
    [watched] = [r["Properties"]["EventPattern"]["detail"]["eventName"]
                 for r in templates["alarms"]["Resources"].values() if r["Type"] == "AWS::Events::Rule"]
    expect({"PutKeyPolicy", "PutBucketPolicy", "DeleteBucketPolicy"} <= set(watched), "a policy changes unseen")
    s3 = {}
    for policy in properties("service", "ServerRole")["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                if action.startswith("s3:"):
                    s3[action] = statement["Resource"]
    below = s3.pop("s3:PutObject", {}).get("Fn::Sub", [""])[0]
    expect(below.endswith(":s3:::${Bucket}/checkpoints/*"), "ServerRole: writes elsewhere")
    arn = {"Fn::ImportValue": {"Fn::Sub": "${Name}-checkpoints-arn"}}
    expect(s3 == {"s3:GetBucketObjectLockConfiguration": arn}, f"ServerRole: other permissions for the checkpoints: {s3}")

    for name, resource in templates["service"]["Resources"].items():
        for policy in resource["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = statement["Action"]
                actions = [actions] if isinstance(actions, str) else actions
                expect(not any("*" in action for action in actions), f"{name}: all actions")
                expect(statement["Resource"] != "*", f"{name}: all resources")
    expect("Policies" not in properties("service", "BotRole"), "the bot's role can do something")
    for name in ["PageTargets", "ApiTargets"]:
        targets = properties("service", name)
        # An HTTPS check cannot talk to a target with TLS 1.3 alone.
        expect(targets["HealthCheckProtocol"] == "HTTP", f"{name}: health checks by HTTPS")
        expect(targets["HealthCheckPort"] == "8081", f"{name}: health checks of another port")
        expect(targets["HealthCheckPath"] == "/readyz", f"{name}: health checks ignore the databases")
    public = [r["Properties"] for r in templates["network"]["Resources"].values()
              if r["Type"] == "AWS::EC2::SecurityGroupIngress"
              and r["Properties"].get("SourceSecurityGroupId") == {"Ref": "BalancerGroup"}]
    expect({rule["FromPort"] for rule in public} == {8444, 8081}, "the API is public")
    for parameter in ["ServerImage", "BotImage"]:
        pattern = templates["service"]["Parameters"][parameter].get("AllowedPattern", "")
        expect(not re.fullmatch(pattern, "kms:latest"), f"{parameter}: a tag that can move")
    bot = properties("service", "BotService")
    rollout = bot["DeploymentConfiguration"]
    expect(bot["DesiredCount"] == 1 and rollout["MaximumPercent"] == 100, "two bots poll at once")
    expect(rollout["MinimumHealthyPercent"] == 0, "the bot can never be replaced")

    settings = {p: (ROOT / f"deploy/{p.lower()}.env.example").read_text() for p in ["SERVER", "BOT"]}
    for name in ["Server", "Migrate", "Bot"]:
        [container] = properties("service", name)["ContainerDefinitions"]
        expect(container.get("User") == "10001:10001", f"{name}: runs as root")
        expect(container.get("ReadonlyRootFilesystem") is True, f"{name}: writes to its image")
        given = [e["Name"] for e in container["Environment"] + container["Secrets"]]
        expect(len(given) == len(set(given)), f"{name}: a setting twice")
        known = settings["BOT" if name == "Bot" else "SERVER"]
        for variable in given:
            # Chains have names of the operator's own.
            setting = re.sub(r"__CHAINS__[A-Z0-9]+__", "__CHAINS__LOCAL__", variable)
            is_known = re.search(rf"^(# )?{setting}(_FILE)?=", known, re.M)
            expect(is_known, f"{name}: {variable} is no setting")
        secret = re.compile(r"TOKEN$|PASSPHRASE$|SERVER_KEYS__|TLS__KEY$|KEY_DATABASE__URL$|MIGRATE_URL$|MAIL__URL$")
        for variable in container["Environment"]:
            expect(not secret.search(variable["Name"]), f"{name}: {variable['Name']} in plaintext")
    [server] = properties("service", "Server")["ContainerDefinitions"]
    environment = {e["Name"]: e["Value"] for e in server["Environment"]}
    expect(environment["KMS_SERVER__PROFILE"] == "production", "Server: weak settings are accepted")
    drain = int(environment["KMS_SERVER__OPS__DRAIN"].removesuffix("s"))
    grace = int(server["Command"][server["Command"].index("--stop-timeout") + 1])
    expect(server["StopTimeout"] >= drain + grace + 15, "a stop is cut off")

    events = (ROOT / "docs/operating/monitoring.md").read_text().split("## Alarms")[1]
    headings = (ROOT / "docs/operating/runbooks.md").read_text().lower()
    for name, resource in templates["alarms"]["Resources"].items():
        for event in re.findall(r'\$\.event = "(\w+)"', resource["Properties"].get("FilterPattern", "")):
            expect(f"`{event}`" in events, f"{name}: no event is named {event}")
        if resource["Type"] == "AWS::CloudWatch::Alarm":
            heading = resource["Properties"]["AlarmDescription"].split("#")[1]
            expect(f"## {heading}\n" in headings, f"{name}: no runbook {heading}")
    return problems


def start_aws():
    """Starts an AWS in this process, which every client and program finds by the environment."""
    from moto.server import ThreadedMotoServer

    # Each type of SKIPPED is a warning.
    for name in ["moto", "werkzeug"]:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    os.environ.update(
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="eu-central-1",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
    )


def deploy(folder):
    """Deploys all stacks, in order, and returns the server's task."""
    import boto3

    cloudformation = boto3.client("cloudformation")
    for name in STACKS:
        parameters = PARAMETERS.get(name, {}).items()
        template = (folder / f"{name}.yaml").read_text()
        for text, replacement in MOTO_LACKS.items():
            template = template.replace(text, replacement)
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=template,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters],
        )
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
        if stack["StackStatus"] != "CREATE_COMPLETE":
            sys.exit(f"{name}: {stack['StackStatus']}")
        made = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        made = collections.Counter(r["ResourceType"] for r in made if "ResourceType" in r)
        wanted = {kind: count for kind, count in types(EXPECTED[name]).items() if kind not in SKIPPED}
        if made != wanted:
            sys.exit(f"{name}: other resources were made: {dict(made)}")
    task = boto3.client("ecs").describe_task_definition(taskDefinition="wallet-kms-server")
    return task["taskDefinition"]["containerDefinitions"][0]


def parse_with(program, container):
    """Parses the configuration as the task has it, with values in the place of its secrets."""
    environment = {e["name"]: str(e["value"]) for e in container["environment"]}
    for secret in container["secrets"]:
        environment[secret["name"]] = SECRETS[secret["valueFrom"].rsplit(":", 3)[1]]
    with tempfile.TemporaryDirectory() as directory:
        command = [str(program.resolve()), "check-config"]
        shown = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, timeout=120)
    if not shown.stdout.startswith("Settings {"):
        sys.exit(f"the server refuses the task's environment: {shown.stdout}{shown.stderr}")


def main():
    arguments = sys.argv[1:]
    found = problems_of(HERE)
    if found:
        sys.exit("\n".join(found))
    lint = [pathlib.Path(sys.executable).parent / "cfn-lint", *HERE.glob("*.yaml")]
    subprocess.run(lint, check=True)
    start_aws()
    container = deploy(HERE)
    for program in [argument for argument in arguments if not argument.startswith("-")]:
        parse_with(pathlib.Path(program), container)
        template = yaml.load((HERE / "data.yaml").read_text(), Tagged)
        checkpoints.check(pathlib.Path(program).resolve(), container, template)
    if "--mistakes" in arguments:
        for name, text, replacement in MISTAKES:
            with tempfile.TemporaryDirectory() as directory:
                folder = pathlib.Path(directory)
                for template in HERE.glob("*.yaml"):
                    shutil.copy(template, folder)
                path = folder / f"{name}.yaml"
                if text not in path.read_text():
                    sys.exit(f"{name}: the mistake has no place: {text}")
                path.write_text(path.read_text().replace(text, replacement))
                found = problems_of(folder)
                if not found:
                    sys.exit(f"{name}: not found: {replacement}")
                print(f"{name}: {found[0]}")
    print(f"{len(STACKS)} stacks deployed")


if __name__ == "__main__":
    main()
