//! Tokens that the configuration declares by their hashes.

use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use kms_server_testing::commands::{fails, start_error, succeeds};
use kms_server_testing::requests::create;
use kms_server_testing::{ServerProcess, Stores, TestEnv};
use kms_types::ErrorCode;

#[actix_web::test]
async fn a_declared_token_is_accepted_until_it_is_removed() {
    let mut env = TestEnv::new(Stores::Embedded).unwrap();
    succeeds(&env, "migrate");
    let file = env.directory.path().join("bot-token");
    let hash = succeeds(&env, "token generate bot-token");
    fails(&env, "token generate bot-token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(!hash.contains(&token) && hash.trim().len() == 64, "{hash}");
    let declare = |name: &str, scope: &str| {
        let hash = hash.trim();
        let tokens =
            format!("[{{ name = \"{name}\", scopes = [\"{scope}\"], hash = \"{hash}\" }}]");
        vec![("KMS_SERVER__TOKENS".to_owned(), tokens)]
    };

    env.variables = declare("bot", "bot");
    let server = ServerProcess::start(&env, None, "info");
    server.client(&env, &token).create_account(&create(1, "ann", "ann's")).await.unwrap();
    server.terminate();
    let actors = succeeds(&env, "audit export");
    assert!(actors.contains("\"actor\":\"bot\""), "{actors}");
    assert_eq!(succeeds(&env, "token list"), "bot\tbot\tdeclared\n");
    fails(&env, "token revoke bot");
    fails(&env, "token new bot --scopes read");

    let code = async |env: &TestEnv| {
        let server = ServerProcess::start(env, None, "info");
        let refused = server.client(env, &token).create_account(&create(2, "bob", "bob's")).await;
        server.terminate();
        refused.unwrap_err().code().unwrap()
    };
    env.variables = declare("bot", "read");
    assert_eq!(code(&env).await, ErrorCode::Forbidden);
    env.variables.clear();
    assert_eq!(code(&env).await, ErrorCode::Unauthorized);

    // Names are not reused: the audit knows a token by its name.
    succeeds(&env, "token new bot --scopes read");
    env.variables = declare("bot", "bot");
    assert_snapshot!("start_with_the_name_of_a_token", start_error(&fails(&env, "serve")));
}
