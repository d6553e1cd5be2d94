//! `prepare.sh`, `upgrade.sh` and `backup.sh`, and the databases of `compose.yaml` run as processes
//! of this machine, with what `prepare.sh` made for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use bot_api_sim::Sim;
use kms_testkit::{Anvil, Mongod, Postgres, free_port};
use serde_norway::Value;

use crate::checkout::{Checkout, is_log, onboard, text};
use crate::compose_file::{Service, services};

const SERVER: &str = "target/release/kms-server";
/// A program of the PATH that stops the script at a step: it fails, or kills the script.
const INTERRUPTS: &str = r#"#!/bin/sh
left=$(($(/bin/cat "$STEPS") - 1))
echo $left >"$STEPS"
if [ $left = 0 ]; then
    [ "$KILLS" = no ] || kill -9 $PPID
    exit 1
fi
PATH=${PATH#*:}
export PATH
exec "${0##*/}" "$@"
"#;
/// Simulates Docker: logs what is run, fails at one step, and makes the files of a backup.
const DOCKER: &str = r#"#!/bin/sh
[ "$1 $2 $3" = "compose -f compose.yaml" ] || exit 9
shift 3
echo "$*" >>docker.log
case "$*" in
    *"${FAIL:-nothing}"*) exit 1 ;;
    *backup-accounts) echo accounts >backups/new/accounts.dump ;;
    *backup-keys) echo keys >backups/new/keys.archive ;;
esac
"#;

fn prepare(checkout: &Checkout, before: &str, server: &str, input: &str) -> Output {
    let uid = rustix::process::geteuid().as_raw();
    let users = format!("KMS_UID={uid} KMS_DATABASE_UID={uid}");
    checkout.shell(&format!("{before} {users} KMS_SERVER={server} deploy/prepare.sh"), input)
}

fn install(checkout: &Checkout, program: &str, script: &str) {
    let path = checkout.path(program);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Stops it at its first step, then repeats it; afresh with the second step, and so on.
pub(crate) fn interrupt_prepare() {
    let checkout = Checkout::new();
    for program in ["cat", "mkdir", "mv", "openssl", "rm", "sed"] {
        install(&checkout, &format!("bin/{program}"), INTERRUPTS);
    }
    // Making real keys takes seconds.
    install(&checkout, "keys", "#!/bin/sh\nmkdir \"$4\" && echo key >\"$4/kms-key.pem\"\n");
    let token = "123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 200, "it never succeeds");
        checkout.run(&format!("rm -rf deploy/secrets; echo {steps} >steps"), "");
        let kills = if steps % 2 == 0 { "yes" } else { "no" };
        let before = format!("PATH=$PWD/bin:$PATH STEPS=$PWD/steps KILLS={kills}");
        if prepare(&checkout, &before, "keys", token).status.success() {
            break;
        }
        let done = prepare(&checkout, "", "keys", token);
        assert!(done.status.success(), "after step {steps}: {}", text(&done));
        assert_complete(&checkout);
    }
    assert!(steps > 40, "{steps}");
    // The same again, when everything is there.
    let made = checkout.secrets();
    let again = prepare(&checkout, "", "/bin/false", "");
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(checkout.secrets(), made);
    renews_certificates(&checkout);
}

fn assert_complete(checkout: &Checkout) {
    checkout.run(
        "cd deploy/secrets\n\
         for service in server postgres mongodb; do\n\
         openssl verify -purpose sslserver -CAfile bot/server.pem $service/tls.pem\n\
         openssl x509 -noout -pubkey -in $service/tls.pem >public\n\
         openssl pkey -pubout -in $service/tls-key.pem | cmp - public\n\
         done\n\
         rm public",
        "",
    );
    let passwords = "cat deploy/secrets/admin/*-* deploy/secrets/postgres/admin-password";
    let passwords = text(&checkout.run(passwords, ""));
    let mut passwords: Vec<_> = passwords.lines().collect();
    assert!(passwords.len() == 7 && passwords.iter().all(|line| line.len() == 48), "{passwords:?}");
    passwords.sort_unstable();
    passwords.dedup();
    assert_eq!(passwords.len(), 7, "each role has its own password");
    let open = text(&checkout.run("find deploy/secrets -perm /077", ""));
    assert_eq!(open, "");
}

/// A certificate that expires soon is renewed; the authority that the bot trusts stays.
fn renews_certificates(checkout: &Checkout) {
    checkout.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 \
         -subj /CN=server -keyout deploy/secrets/server/tls-key.pem \
         -out deploy/secrets/server/tls.pem",
        "",
    );
    let renewed = text(&prepare(checkout, "", "/bin/false", ""));
    assert!(renewed.contains("renewing deploy/secrets/server/tls.pem"), "{renewed}");
    assert_complete(checkout);
}

/// Both databases with TLS and passwords; `migrate` as the owner, everything else as the serving
/// role, up to a wallet that is created in the chat.
pub(crate) fn run_what_prepare_made() {
    let checkout = Checkout::new();
    let (anvil, sim) = (Anvil::start().unwrap(), Sim::start().unwrap());
    // Simulates an image that cannot be built, and a mistyped token.
    assert!(!prepare(&checkout, "", "/bin/false", "").status.success());
    assert!(!prepare(&checkout, "", SERVER, "hello\n").status.success());
    let done = prepare(&checkout, "", SERVER, &format!("{}\n", sim.token()));
    assert!(done.status.success(), "{}", text(&done));

    let services = services();
    let postgres = start_postgres(&checkout, &services["postgres-roles"]);
    let mongod = start_mongod(&checkout, &services["mongodb"]);
    for (file, from, to) in [
        ("server/database-url", "@postgres/", format!("@localhost:{}/", postgres.port())),
        ("migrate/database-url", "@postgres/", format!("@localhost:{}/", postgres.port())),
        ("migrate/database-url", "/etc/kms-owner", "../migrate".to_owned()),
        ("server/key-database-url", "@mongodb:27017", format!("@localhost:{}", mongod.port())),
    ] {
        let path = checkout.path(&format!("deploy/secrets/{file}"));
        let url = fs::read_to_string(&path).unwrap();
        assert!(url.contains(from), "{file}");
        fs::write(&path, url.replace(from, &to)).unwrap();
    }
    let port = free_port().unwrap();
    let environment = format!(
        "cd deploy/secrets/server\n\
         export KMS_SERVER__LISTEN=127.0.0.1:{port} KMS_SERVER__OPS__LISTEN=127.0.0.1:0\n\
         export KMS_SERVER__AUDIT__CHECKPOINT_PATH=$PWD/checkpoints\n\
         export KMS_SERVER__CHAINS__LOCAL__RPC_URLS={}\n",
        anvil.url(),
    );
    let server = format!("../../../{SERVER}");
    checkout.run(
        &format!(
            "umask 077\n{environment}\
             if {server} migrate; then exit 1; fi\n\
             KMS_SERVER__DATABASE__MIGRATE_URL_FILE=../migrate/database-url {server} migrate\n\
             {server} check-config\n\
             {server} token new bot --scopes bot >../bot/server-token"
        ),
        "",
    );
    let serve = format!("{environment}{server} serve");
    let server = checkout.start(&serve, "", |line| is_log(line, "listening"));
    let bot = format!(
        "cd deploy/secrets/bot\n\
         export KMS_BOT__SERVER__URL=https://localhost:{port} KMS_BOT__TELEGRAM__API_URL={}\n\
         export KMS_BOT__STATE__PATH=$PWD/state KMS_BOT__OPS__LISTEN=127.0.0.1:0\n\
         ../../../target/release/kms-bot serve",
        sim.api_url()
    );
    let bot = checkout.start(&bot, "", |line| is_log(line, ""));
    onboard(&sim, || postgres.execute("kms", "select count(*) from accounts").unwrap());
    for running in [bot, server] {
        let (status, said) = running.stop();
        assert!(status.success(), "{said}");
    }
    back_up(&checkout, &services["backup-accounts"], postgres.port());
    let tampers = "cd deploy/secrets/server\n\
                   psql \"$(cat database-url)\" -c 'update audit set at = 0'";
    let refused = text(&checkout.shell(tampers, ""));
    assert!(refused.contains("permission denied"), "{refused}");
    checkout.assert_git_sees_nothing_secret();
}

fn start_postgres(checkout: &Checkout, roles: &Service) -> Postgres {
    let read = |file: &str| fs::read_to_string(checkout.path("deploy/secrets").join(file)).unwrap();
    let (certificate, key) = (read("postgres/tls.pem"), read("postgres/tls-key.pem"));
    let password = read("postgres/admin-password");
    let postgres = Postgres::start_tls(&certificate, &key, Some(password.trim())).unwrap();
    let makes_roles = job(roles, "deploy/secrets/admin", postgres.port());
    // Repeated, as by an upgrade.
    checkout.run(&format!("{makes_roles}\n{makes_roles}"), "");
    postgres
}

fn start_mongod(checkout: &Checkout, service: &Service) -> Mongod {
    let secrets = checkout.path("deploy/secrets");
    let folder = secrets.join("mongodb").display().to_string();
    let arguments: Vec<_> = words(service.command.as_ref())
        .iter()
        // The test kit sets these.
        .filter(|word| !["--bind_ip_all", "--wiredTigerCacheSizeGB", "0.25"].contains(&&***word))
        .map(|word| word.replace("/etc/kms", &folder))
        .collect();
    let mongod = Mongod::start_bare(&arguments).unwrap();
    let script = checkout.path("deploy/mongodb/roles.js").display().to_string();
    let authority = secrets.join("admin/ca.pem").display().to_string();
    for _ in 0..2 {
        let tls = ["--tls", "--tlsCAFile", &authority];
        mongod.make_roles(&script, "kms", &secrets.join("admin"), &tls).unwrap();
    }
    mongod
}

/// The accounts' backup is made by a role that can only read.
fn back_up(checkout: &Checkout, service: &Service, port: u16) {
    fs::create_dir(checkout.path("deploy/backups")).unwrap();
    checkout.run(&job(service, "deploy/secrets/backup", port), "");
    let listed = text(&checkout.run("pg_restore --list deploy/backups/accounts.dump", ""));
    assert!(listed.contains("TABLE DATA public accounts"), "{listed}");
    let writes = job(service, "deploy/secrets/backup", port);
    let writes = writes.split(" pg_dump").next().unwrap().to_owned();
    let refused = checkout.shell(&format!("{writes} psql -c 'delete from accounts'"), "");
    assert!(text(&refused).contains("permission denied"), "{}", text(&refused));
}

/// The command of a job, with its variables, for PostgreSQL on this port of this machine.
fn job(service: &Service, secrets: &str, port: u16) -> String {
    let local = |text: &str| {
        text.replace("/etc/kms", secrets)
            .replace("/etc/roles.sql", "deploy/postgres/roles.sql")
            .replace("=/backup/", "=deploy/backups/")
    };
    let variables = service.environment.iter().map(|(name, value)| {
        let value = if name == "PGHOST" { "localhost" } else { value };
        format!("{name}={}", local(value))
    });
    let words = words(service.entrypoint.as_ref());
    let words = words.iter().map(|word| local(word));
    let all: Vec<_> = variables.chain([format!("PGPORT={port}")]).chain(words).collect();
    all.join(" ")
}

/// A command as compose splits it: a list, or words.
fn words(command: Option<&Value>) -> Vec<String> {
    match command.unwrap() {
        Value::Sequence(words) => words.iter().map(|word| word.as_str().unwrap().into()).collect(),
        words => words.as_str().unwrap().split_whitespace().map(str::to_owned).collect(),
    }
}

const STOP: &str = "stop bot server";
const MIGRATE: &str = "run --rm --no-deps -T migrate";

/// The order of `upgrade.sh`, and what it does after a failure of each step.
pub(crate) fn upgrade() {
    let steps = run_upgrade("", true).0;
    let expected = [
        "build server bot",
        STOP,
        "up -d --wait postgres mongodb",
        "run --rm --no-deps -T postgres-roles",
        "run --rm --no-deps -T mongodb-roles",
        "run --rm --no-deps -T backup-accounts",
        "run --rm --no-deps -T backup-keys",
        MIGRATE,
        "up -d --wait server",
        "up -d bot",
    ];
    assert_eq!(steps, expected);
    let migrate = expected.iter().position(|step| *step == MIGRATE).unwrap();
    for (failing, step) in expected.iter().enumerate() {
        let (mut steps, backups) = run_upgrade(step, false);
        let is_undone = steps.last().is_some_and(|step| step == "start server bot");
        assert_eq!(is_undone, (1..migrate).contains(&failing), "{step}: {steps:?}");
        if is_undone {
            steps.pop();
        }
        assert_eq!(steps, expected[..=failing], "{step}");
        assert_eq!(backups, usize::from(failing >= migrate), "{step}");
    }
}

/// Returns what Docker was asked for, and the number of backups.
fn run_upgrade(fails: &str, succeeds: bool) -> (Vec<String>, usize) {
    let checkout = Checkout::new();
    install(&checkout, "bin/docker", DOCKER);
    fs::create_dir_all(checkout.path("deploy/secrets/bot")).unwrap();
    fs::write(checkout.path("deploy/secrets/bot/server-token"), "").unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let run = checkout.shell(
        &format!("PATH=$PWD/bin:$PATH FAIL='{fails}' KMS_DATABASE_UID={uid} deploy/upgrade.sh"),
        "",
    );
    assert_eq!(run.status.success(), succeeds, "{}", text(&run));
    let log = fs::read_to_string(checkout.path("deploy/docker.log")).unwrap();
    (log.lines().map(str::to_owned).collect(), count_backups(&checkout.path("deploy/backups")))
}

fn count_backups(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("20")).count()
}
