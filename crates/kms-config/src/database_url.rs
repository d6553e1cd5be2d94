//! Whether traffic to a database is encrypted or stays on this machine.
//!
//! Neither PostgreSQL nor MongoDB encrypts by default, and their URLs are not URLs for the parser
//! of the URL standard: they have several hosts. What is unclear counts as not private.

use std::net::IpAddr;

use url::form_urlencoded;

/// The hosts and the options of a database's URL, percent-decoded.
struct DatabaseUrl {
    hosts: Vec<String>,
    options: Vec<(String, String)>,
}

/// Whether libpq checks the server's certificate and name, or connects to this machine alone.
#[must_use]
pub fn is_private_postgres(url: &str) -> bool {
    let Some(DatabaseUrl { hosts, options }) = parse(url) else {
        return false;
    };
    let values = |name: &str| {
        let of_name: Vec<_> =
            options.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect();
        of_name
    };
    // They name other hosts and options, or set `sslmode`.
    if ["service", "servicefile", "ssl", "requiressl"].iter().any(|name| !values(name).is_empty()) {
        return false;
    }
    let modes = values("sslmode");
    if !modes.is_empty() && modes.iter().all(|mode| mode == "verify-full") {
        return true;
    }
    let more = [values("host"), values("hostaddr")].concat();
    let more = more.iter().flat_map(|hosts| hosts.split(','));
    let all: Vec<&str> = hosts.iter().map(String::as_str).chain(more).collect();
    // Without a host, libpq takes it from its own environment.
    let named = all.iter().filter(|host| !host.is_empty());
    named.clone().count() > 0 && named.into_iter().all(|host| is_local(host))
}

/// Whether the driver checks the server's certificate and name, or connects to this machine alone.
///
/// The driver also connects to the members that a replica set names. Without TLS, the caller has to
/// check that they are on this machine too.
#[must_use]
pub fn is_private_mongodb(url: &str) -> bool {
    let Some(DatabaseUrl { hosts, options }) = parse(url) else {
        return false;
    };
    let mut is_encrypted = url.starts_with("mongodb+srv://");
    for (key, value) in &options {
        match key.to_ascii_lowercase().as_str() {
            "tls" | "ssl" if value == "true" => is_encrypted = true,
            "tls" | "ssl" => return hosts.iter().all(|host| is_local(host)),
            "tlsinsecure" | "tlsallowinvalidcertificates" | "tlsallowinvalidhostnames"
                if value != "false" =>
            {
                return false;
            }
            _ => {}
        }
    }
    is_encrypted || hosts.iter().all(|host| is_local(host))
}

/// Whether a host, with or without a port, is a loopback address, `localhost` or a Unix socket.
fn is_local(host: &str) -> bool {
    if host.starts_with('/') {
        return true;
    }
    let is_address = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if is_address(host) => host,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || is_address(name)
}

fn parse(url: &str) -> Option<DatabaseUrl> {
    let (_scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    // Parsers disagree on where a host begins that follows such a sign.
    if rest.contains('@') || rest.contains('#') {
        return None;
    }
    let hosts = authority.split_once('@').map_or(authority, |(_user, hosts)| hosts);
    let decode = |text: &str| {
        let pair = form_urlencoded::parse(text.as_bytes()).next();
        pair.map(|(text, _)| text.into_owned()).unwrap_or_default()
    };
    let options = rest.split_once('?').map_or("", |(_path, options)| options);
    let options = form_urlencoded::parse(options.as_bytes()).into_owned().collect();
    Some(DatabaseUrl { hosts: hosts.split(',').map(decode).collect(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_on_another_machine_needs_a_checked_certificate() {
        for good in [
            "postgres://kms:x@db.example/kms?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://kms:x@a.example,b.example/kms?sslmode=verify-full",
            "postgres://kms:x@localhost/kms",
            "postgres://kms:x@127.0.0.1:5432/kms?connect_timeout=3",
            "postgresql://kms@[::1]:5432/kms",
            "postgres://kms@localhost:1,127.0.0.2/kms",
            "postgres:///kms?host=%2Fvar%2Frun%2Fpostgresql",
            "postgres:///kms?host=/run/postgresql",
            "postgres://kms@%2Frun%2Fpostgresql/kms",
            "postgres://kms@localhost/kms?hostaddr=127.0.0.1",
        ] {
            assert!(is_private_postgres(good), "{good}");
        }
        for bad in [
            "postgres://kms:x@db.example/kms",
            "postgres://kms:x@db.example/kms?sslmode=require",
            "postgres://kms:x@db.example/kms?sslmode=verify-ca",
            "postgres://kms:x@db.example/kms?sslmode=verify-full&sslmode=disable",
            "postgres://kms:x@db.example/kms?sslmode=verify-full&ssl%6Dode=disable",
            "postgres://kms:x@db.example/kms?sslmode=verify-full&ssl=true",
            "postgres://kms:x@db.example/kms?sslmode=verify-full&service=other",
            "postgres://kms:x@db.example/kms#?sslmode=verify-full",
            "postgres://kms:x@db.example/kms/?x=sslmode=verify-full",
            "postgres://kms:x@localhost,db.example/kms",
            "postgres://kms:x@localhost/kms?host=db.example",
            "postgres://kms:x@localhost/kms?host=localhost,db.example",
            "postgres://kms:x@localhost/kms?hostaddr=10.0.0.1",
            "postgres://kms:x@localhost/kms?service=other",
            "postgres://localhost@db.example/kms",
            "postgres://localhost?x=@db.example/kms",
            "postgres://kms@localhost@db.example/kms",
            "postgres://kms@localhost.example/kms",
            "postgres://kms@127.0.0.1.example/kms",
            "postgres://kms@0.0.0.0/kms",
            "postgres:///kms",
            "postgres://kms@/kms",
            "kms",
        ] {
            assert!(!is_private_postgres(bad), "{bad}");
        }
    }

    #[test]
    fn mongodb_on_another_machine_needs_a_checked_certificate() {
        for good in [
            "mongodb://kms:x@a.example,b.example/?replicaSet=rs0&tls=true",
            "mongodb://kms:x@a.example/?ssl=true&tlsCAFile=/etc/ca.pem",
            "mongodb://kms:x@a.example/?tls=true&tlsInsecure=false",
            "mongodb+srv://kms:x@cluster.example/",
            "mongodb://localhost/?replicaSet=rs0",
            "mongodb://127.0.0.1:27017,[::1]:27018/?tls=false",
            "mongodb://%2Frun%2Fmongodb-27017.sock/",
        ] {
            assert!(is_private_mongodb(good), "{good}");
        }
        for bad in [
            "mongodb://kms:x@a.example/?replicaSet=rs0",
            "mongodb://kms:x@localhost,a.example/?replicaSet=rs0",
            "mongodb://kms:x@a.example/?tls=false",
            "mongodb://kms:x@a.example/?tls=true&tls=false",
            "mongodb://kms:x@a.example/?tls=true&tlsInsecure=true",
            "mongodb://kms:x@a.example/?tls=true&TLSAllowInvalidCertificates=true",
            "mongodb://kms:x@a.example/?tls=true&tlsAllowInvalidHostnames=1",
            "mongodb+srv://kms:x@cluster.example/?tls=false",
            "mongodb+srv://kms:x@cluster.example/?ssl=false",
            "mongodb://localhost@a.example/",
            "mongodb://a.example/?x=@localhost",
            "mongodb://kms@a@localhost/",
            "kms",
        ] {
            assert!(!is_private_mongodb(bad), "{bad}");
        }
    }
}
