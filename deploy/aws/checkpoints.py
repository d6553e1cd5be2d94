"""Runs a server whose checkpoints go to the bucket of the templates, in moto, which then enforces
the policies of the roles: what each may do, and what it may not."""

import ast
import contextlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "crates/kms-core/vectors"


def fail(what):
    sys.exit(f"checkpoints: {what}")


def credentials(iam, name, policy):
    """The variables of a new user who has this policy alone."""
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def role(sts, name):
    """The variables of a task that has this role."""
    arn = f"arn:aws:iam::123456789012:role/{name}"
    given = sts.assume_role(RoleArn=arn, RoleSessionName="task")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


def client(variables):
    import boto3

    names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    return boto3.client("s3", **{name.lower(): variables.get(name) for name in names})


def refused(codes, call, **arguments):
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] in codes:
            return
        fail(f"{call.__name__}: {error}")
    fail(f"{call.__name__} was not refused: {arguments}")


def settings(folder, bucket):
    """A server on SQLite with the key of tests."""
    for name in ["test-kms-key", "test-kms-key-passphrase"]:
        path = folder / name
        path.write_text((VECTORS / f"{name}.txt").read_text())
        path.chmod(0o600)
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-keyout", "tls.key", "-out", "tls.pem", "-days", "30", "-subj", "/CN=localhost",
                   "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(certificate, cwd=folder, check=True, capture_output=True)
    values = {
        "LISTEN": "127.0.0.1:0",
        "PAGE__LISTEN": "127.0.0.1:0",
        "OPS__LISTEN": "127.0.0.1:0",
        "TLS__CERTIFICATE": (folder / "tls.pem").read_text(),
        "TLS__KEY": (folder / "tls.key").read_text(),
        "DATABASE__URL": "sqlite:accounts.db",
        "KEY_DATABASE__URL": "sqlite:keys.db",
        "KMS_KEY__ID": "test",
        "KMS_KEY__PATH": "test-kms-key",
        "KMS_KEY__PASSPHRASE_FILE": "test-kms-key-passphrase",
        "CHAINS__ETHEREUM__RPC_URLS": "http://127.0.0.1:9",
        "CHAINS__ETHEREUM__CHAIN_ID": "1",
        "CHAINS__ETHEREUM__NAME": "Ethereum",
        "AUDIT__CHECKPOINT_S3": f"s3://{bucket}/checkpoints",
        **{f"SERVER_KEYS__{key}": f"1:{'1' * 64}" for key in ["PEPPER", "CONTACT", "ROW", "AUDIT", "CODES", "CHECKPOINT"]},
    }
    variables = {f"KMS_SERVER__{name}": value for name, value in values.items()}
    return variables | {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}


def enforce(container, template):
    """Makes moto check signatures and policies from here on. Returns the bucket, and the variables
    of each role."""
    import boto3

    [place] = [e["value"] for e in container["environment"] if e["name"] == "KMS_SERVER__AUDIT__CHECKPOINT_S3"]
    bucket = place.removeprefix("s3://").removesuffix("/checkpoints")
    iam, s3 = boto3.client("iam"), boto3.client("s3")
    # moto ignores these properties of the template.
    properties = template["Resources"]["Checkpoints"]["Properties"]
    retention = properties["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    days = template["Parameters"][retention["Days"]["Ref"]]["Default"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=properties["VersioningConfiguration"])
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {**retention, "Days": days}}}
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
    # Those with a condition would deny everything: moto does not evaluate it.
    document = template["Resources"]["CheckpointsPolicy"]["Properties"]["PolicyDocument"]
    everywhere = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    denied = [{**s, "Resource": everywhere} for s in document["Statement"] if "Condition" not in s]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({**document, "Statement": denied}))

    # moto keeps the policies of a template's role as Python prints them, and cannot evaluate that.
    for name in ["wallet-kms-server", "wallet-kms-bot"]:
        for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=inline)["PolicyDocument"]
            iam.put_role_policy(RoleName=name, PolicyName=inline, PolicyDocument=json.dumps(ast.literal_eval(document)))
    sts = boto3.client("sts")
    everything = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'
    policy = iam.create_policy(PolicyName="everything", PolicyDocument=everything)["Policy"]["Arn"]
    reads = "arn:aws:iam::123456789012:policy/wallet-kms-read-checkpoints"
    adds = json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/checkpoints/*"}})
    roles = {
        "server": role(sts, "wallet-kms-server"),
        "bot": role(sts, "wallet-kms-bot"),
        "auditor": credentials(iam, "auditor", reads),
        "operator": credentials(iam, "operator", reads),
        "root": credentials(iam, "root", policy),
    }
    iam.put_user_policy(UserName="operator", PolicyName="adds", PolicyDocument=adds)
    # It takes this call for ListBucket.
    from moto.s3.responses import ACTION_MAP

    ACTION_MAP["BUCKET"]["GET"]["object-lock"] = "GetBucketObjectLockConfiguration"
    reset = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", b"0")
    reset.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(reset).close()
    return bucket, roles


def check(program, container, template):
    bucket, roles = enforce(container, template)
    server, bot, auditor, root = [roles[name] for name in ["server", "bot", "auditor", "root"]]
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        variables = settings(folder, bucket)

        def run(who, *arguments):
            command = [str(program), *arguments]
            return subprocess.run(command, cwd=folder, env=variables | who, capture_output=True, text=True, timeout=120)

        def succeeds(who, *arguments):
            done = run(who, *arguments)
            if done.returncode != 0:
                fail(f"{arguments}: {done.stdout}{done.stderr}")
            return done.stdout

        succeeds(server, "migrate")
        succeeds(server, "token", "new", "bot", "--scopes", "bot")
        report = run(server, "check-config").stdout
        if "ok      audit.checkpoint_s3" not in report:
            fail(f"check-config: {report}")
        report = run(bot, "check-config").stdout
        if "failed  audit.checkpoint_s3: PutObject: AccessDenied" not in report:
            fail(f"another role is not refused: {report}")
        serve(program, folder, variables | server)
        rows = f"checkpoints cover rows up to {len_of_audit(folder)}"
        verified = succeeds(auditor, "audit", "verify")
        if rows not in verified:
            fail(f"expected {rows}: {verified}")
        permissions(bucket, client(server), client(root))

        # An attacker with both databases cuts the chain.
        for name, statements in [
            ("accounts.db", ["delete from audit where chain_seq > 1",
                             "update audit_head set (chain_seq, hash) = (select chain_seq, hash from audit)"]),
            ("keys.db", ["delete from audit_checkpoints"]),
        ]:
            with contextlib.closing(sqlite3.connect(folder / name)) as database:
                for statement in statements:
                    database.execute(statement)
                database.commit()
        cut = run(auditor, "audit", "verify")
        if cut.returncode != 1 or "row 2" not in cut.stdout + cut.stderr:
            fail(f"the cut chain was not found: {cut.stdout}{cut.stderr}")


def serve(program, folder, variables):
    """Starts a server and stops it, by which it writes a checkpoint."""
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([str(program), "serve"], cwd=folder, env=variables, stdout=log)
        for _ in range(300):
            if '"listening"' in (folder / "log").read_text() or server.poll() is not None:
                break
            time.sleep(0.1)
        server.terminate()
        if server.wait(timeout=60) != 0 or "checkpoint_failed" in (folder / "log").read_text():
            fail((folder / "log").read_text())


def len_of_audit(folder):
    with contextlib.closing(sqlite3.connect(folder / "accounts.db")) as database:
        return database.execute("select max(chain_seq) from audit").fetchone()[0]


def permissions(bucket, server, root):
    """The server only adds, and an administrator deletes nothing."""
    version = [v for v in root.list_object_versions(Bucket=bucket)["Versions"] if v["Size"] > 0][0]
    key = version["Key"]
    if server.put_object(Bucket=bucket, Key="checkpoints/new", Body=b"", IfNoneMatch="*")["ResponseMetadata"]["HTTPStatusCode"] != 200:
        fail("the server cannot write")
    refused(["PreconditionFailed"], server.put_object, Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*")
    for call, arguments in [
        (server.put_object, {"Key": "elsewhere", "Body": b"", "IfNoneMatch": "*"}),
        (server.get_object, {"Key": key}),
        (server.delete_object, {"Key": key}),
        (server.list_objects_v2, {}),
        (server.list_object_versions, {}),
        (server.put_object_lock_configuration, {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}),
        (root.delete_object, {"Key": key, "VersionId": version["VersionId"]}),
        (root.delete_object, {"Key": key}),
    ]:
        # moto answers 403 where the bucket's policy denies.
        refused(["AccessDenied", "403"], call, Bucket=bucket, **arguments)
