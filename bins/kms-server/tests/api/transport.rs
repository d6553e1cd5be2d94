//! TLS to PostgreSQL and MongoDB, with a certificate authority of one's own.

use std::path::PathBuf;

use kms_server_testing::commands::{checks, fails, succeeds};
use kms_server_testing::{ServerProcess, TestEnv};
use kms_testkit::{Mongod, Postgres};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority that issues certificates for names.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        // Distinct from the subject of what it issues, which would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this name, and its private key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn write(&self, env: &TestEnv, name: &str) -> PathBuf {
        let path = env.directory.path().join(name);
        std::fs::write(&path, &self.certificate).unwrap();
        path
    }
}

/// Both databases are used over TLS; another authority, or a certificate for another name, is
/// refused.
#[test]
fn databases_are_reached_over_tls_or_not_at_all() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("127.0.0.1");
    let postgres = Postgres::start_tls(&certificate, &key, None).unwrap();
    let mongod = Mongod::start_tls(&certificate, &key).unwrap();
    let directory = kms_testkit::Scratch::new("server").unwrap();
    let database = postgres.create_database().unwrap();
    let mut env = TestEnv::on(directory, database.clone(), mongod.url(), "kms".into()).unwrap();
    let ca = authority.write(&env, "ca.pem").display().to_string();
    let other = Authority::new().write(&env, "other.pem").display().to_string();
    let over_tls = |ca: &str| {
        (
            format!("{database}?sslmode=verify-full&sslrootcert={ca}"),
            format!("{}&tls=true&tlsCAFile={ca}", mongod.url()),
        )
    };

    (env.database, env.key_database) = over_tls(&ca);
    succeeds(&env, "migrate");
    succeeds(&env, "check-config");
    let encrypted = "select count(*) from pg_stat_ssl where ssl";
    let server = ServerProcess::start(&env, None, "info");
    assert_ne!(postgres.execute("postgres", encrypted).unwrap(), "0");
    server.terminate();

    let (postgres_url, mongodb_url) = over_tls(&other);
    let right = (env.database.clone(), env.key_database.clone());
    for (database, key_database, failed) in [
        (&postgres_url, &right.1, "database"),
        (&right.0.replace("127.0.0.1", "localhost"), &right.1, "database"),
        (&right.0, &mongodb_url, "key_database"),
        (&right.0, &right.1.replace("127.0.0.1", "localhost"), "key_database"),
    ] {
        (env.database, env.key_database) = (database.clone(), key_database.clone());
        let report = fails(&env, "check-config");
        assert!(checks(&report).contains(&(failed, false)), "{report}");
    }
}
