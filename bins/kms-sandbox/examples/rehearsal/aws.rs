//! AWS on this machine: S3, IAM and STS by moto, which enforces the policies of the roles of
//! deploy/aws, and a stand-in for KMS with real RSA, which accepts the server's role alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use kms_server_testing::{TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE};
use kms_testkit::{AWS_REGION, AwsKms};
use pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::PrivateKey;
use serde::Deserialize;

pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The variables of one role.
pub(crate) type Role = BTreeMap<String, String>;

/// The emulator's first line.
#[derive(Debug, Deserialize)]
struct Started {
    endpoint: String,
    bucket: String,
    server: Role,
    auditor: Role,
    operator: Role,
}

/// What a deployment has of AWS.
#[derive(Debug)]
pub(crate) struct Aws {
    emulator: Child,
    started: Started,
    kms: AwsKms,
    key: String,
    public_key: String,
}

impl Aws {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut emulator = Command::new(format!("{REPOSITORY}/target/deploy/bin/python"))
            .arg(format!("{REPOSITORY}/deploy/aws/emulate.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run `just rehearse`, which installs moto")?;
        let mut line = String::new();
        let output = emulator.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let started: Started = serde_json::from_str(&line).context("the emulator did not start")?;
        let kms = AwsKms::start()?;
        let private = PrivateKey::from_pkcs8_encrypted_pem(TEST_KMS_KEY, TEST_KMS_KEY_PASSPHRASE)?;
        let public_key = private.to_public_key().to_public_key_pem(LineEnding::LF)?;
        let key = kms.import(private);
        let of_server = |name: &str| started.server.get(name).map(String::as_str);
        let id = of_server("AWS_ACCESS_KEY_ID").context("the server has a role")?;
        kms.accept(id, of_server("AWS_SESSION_TOKEN"));
        Ok(Self { emulator, started, kms, key, public_key })
    }

    /// The settings of a server, without credentials.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let Started { endpoint, bucket, .. } = &self.started;
        [
            ("KMS_SERVER__KMS_KEY__PROVIDER", "aws-kms"),
            ("KMS_SERVER__KMS_KEY__KEY", &self.key),
            ("KMS_SERVER__KMS_KEY__PUBLIC_KEY", &self.public_key),
            ("KMS_SERVER__KMS_KEY__ENDPOINT", &self.kms.endpoint()),
            ("KMS_SERVER__KMS_KEY__PATH", ""),
            ("KMS_SERVER__KMS_KEY__PASSPHRASE", ""),
            ("KMS_SERVER__AUDIT__CHECKPOINT_PATH", ""),
            ("KMS_SERVER__AUDIT__CHECKPOINT_S3", &format!("s3://{bucket}/checkpoints")),
            ("KMS_SERVER__AUDIT__CHECKPOINT_INTERVAL", "2s"),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", AWS_REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub(crate) fn server(&self) -> &Role {
        &self.started.server
    }

    pub(crate) fn auditor(&self) -> &Role {
        &self.started.auditor
    }

    pub(crate) fn operator(&self) -> &Role {
        &self.started.operator
    }
}

impl Drop for Aws {
    /// It ends with its standard input.
    fn drop(&mut self) {
        drop(self.emulator.stdin.take());
        let _ = self.emulator.wait();
    }
}
