//! The matrix of doors: every operation of both OpenAPI documents, by every token and every
//! opening; and what a thief of the chat bot gets.

use kms_server_testing::requests::{confirm, create, quote, telegram};
use kms_store::Scope;
use kms_types::wire::{RequestRecovery, SeenUsernames, SetLimit, TransferState};
use kms_types::{ErrorCode, LaunchKey, RecoveryId};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::page::{CHAT_BOT, NOTHING, VAULT_BOT, World, code, now, on_both_stores};

on_both_stores!(
    what_was_not_opened_for_this_is_refused,
    a_page_only_account_refuses_every_token,
    a_thief_of_the_chat_bot_gets_nothing,
    a_thief_of_the_chat_bot_moves_no_proved_name,
);

/// An operation of an OpenAPI document.
struct Operation {
    id: String,
    method: Method,
    path: String,
    /// The scope or the purposes that its description requires; `None` if it is open to all.
    needs: Option<Vec<String>>,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().expect("who may call it?");
            let schemes = security.iter().flat_map(|one| one.as_object().unwrap().values());
            let names = schemes.flat_map(|names| names.as_array().unwrap());
            let needs = names.map(|name| name.as_str().unwrap().to_owned()).collect();
            found.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                needs: (operation["security"] != json!([{}])).then_some(needs),
            });
        }
    }
    found
}

/// Pins what each operation requires, so that no new one opens a door unseen.
fn pin(name: &str, operations: &[Operation]) {
    let lines = operations.iter().map(|Operation { id, method, path, needs }| {
        let needs = match needs {
            None => "open".to_owned(),
            Some(needs) if needs.is_empty() => "any".to_owned(),
            Some(needs) => needs.join(" or "),
        };
        format!("{id}: {needs} ({method} {path})")
    });
    insta::assert_snapshot!(name, lines.collect::<Vec<_>>().join("\n"));
}

/// A body of the right form, by the operation's id without its door.
fn body(operation: &str) -> Option<Value> {
    let password = format!("v1.{}", "00".repeat(32));
    let id = NOTHING;
    Some(match operation {
        "page_create_wallet" | "page_export_key" | "export_key" | "page_unfreeze"
        | "page_leave" | "unfreeze_account" => json!({ "password_hash": password }),
        "create_account" => json!({ "telegram_id": 1, "password_hash": password }),
        "page_confirm" => json!({ "password_hash": password, "view": "" }),
        "page_speed_up" | "replace_transfer" => {
            json!({ "id": id, "password_hash": password, "max_fee": "1" })
        }
        "page_change_password" | "change_password" => {
            json!({ "old_password_hash": password, "new_password_hash": password })
        }
        "page_request_recovery" | "request_recovery" => json!({ "id": id }),
        "page_confirm_recovery" | "confirm_recovery" | "page_confirm_email" | "confirm_email" => {
            json!({ "code": "12345678" })
        }
        "page_complete_recovery" | "complete_recovery" => json!({ "new_password_hash": password }),
        "page_change_email" | "change_email" => json!({ "email": null, "password_hash": password }),
        "page_set_limit" => json!({ "amount": "1", "password_hash": password }),
        "set_limit" => json!({ "amount": "1" }),
        "quote_transfer" => {
            json!({ "id": id, "from": "telegram:1", "to": "@bob", "amount": "1" })
        }
        "report_usernames" => json!({ "usernames": ["ann"], "seen_at": 1 }),
        "change_mobile" => json!({ "mobile": null }),
        _ => return None,
    })
}

fn with_body(request: RequestBuilder, operation: &str) -> RequestBuilder {
    match body(operation) {
        Some(body) => request.json(&body),
        None => request.header("Content-Type", "application/json").body("{}"),
    }
}

async fn what_was_not_opened_for_this_is_refused(world: World) {
    let url = |path: &str| world.test.page_url(path);
    let http = world.test.raw();
    let document: Value =
        http.get(url("/app/v1/openapi.json")).send().await.unwrap().json().await.unwrap();
    let operations = operations(&document);
    pin("purposes", &operations);
    let ids = ["c", "s", "r"];
    let token = format!("Bearer {}", world.test.token);
    // Users without a wallet, so that what is allowed has no effect either; each has limits of its
    // own.
    for (user, letter) in (3..).zip(["", "n", "c", "s", "p", "f", "r", "e", "x", "l"]) {
        let id = if ids.contains(&letter) { NOTHING } else { "" };
        let key = LaunchKey::random();
        let init_data = world.signed(VAULT_BOT, user, &format!("{letter}{id}"), now());
        world.open_with(&init_data, &key).await.unwrap();
        for Operation { id, method, path, needs } in &operations {
            let Some(needs) = needs else { continue };
            let send = |authorization: String| {
                let request = http.request(method.clone(), url(path));
                with_body(request.header("Authorization", authorization), id).send()
            };
            let answer = send(format!("Launch {}", *key.to_hex())).await.unwrap();
            let (status, body) = (answer.status(), answer.text().await.unwrap());
            let refused = status == 403 && body.contains("\"forbidden\"");
            let allowed = needs.is_empty() || needs.iter().any(|purpose| purpose == letter);
            assert_eq!(refused, !allowed, "{id} by {letter:?}: {status} {body}");
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{id} by {letter:?}");
            assert!(!status.is_server_error() && status != 400, "{id}: {status} {body}");
        }
    }
    for operation in operations.iter().filter(|operation| operation.needs.is_some()) {
        let unknown = format!("Launch {}", *LaunchKey::random().to_hex());
        for authorization in [&token, &unknown, "", "Launch x"] {
            let request = http.request(operation.method.clone(), url(&operation.path));
            let request = request.header("Authorization", authorization);
            let answer = with_body(request, &operation.id).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{}", operation.id);
        }
    }
}

async fn a_page_only_account_refuses_every_token(world: World) {
    world.onboard().await;
    let (chat, chat_token) = world.client(Scope::Chat).await;
    let (_, read_token) = world.client(Scope::Read).await;
    let (_, admin_token) = world.client(Scope::Admin).await;
    let quoted = chat.quote(&quote(1, "@bob", "1")).await.unwrap();
    let id = RecoveryId::random();
    world.open(1, "f").await.request_recovery(&RequestRecovery { id }).await.unwrap();
    let http = world.test.raw();
    let document: Value =
        http.get(world.test.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    let launch = {
        let key = LaunchKey::random();
        let init_data = world.signed(VAULT_BOT, 1, "x", now());
        world.open_with(&init_data, &key).await.unwrap();
        format!("Launch {}", *key.to_hex())
    };
    let callers = [
        ("bot", format!("Bearer {}", world.test.token)),
        ("chat", format!("Bearer {chat_token}")),
        ("read", format!("Bearer {read_token}")),
        ("admin", format!("Bearer {admin_token}")),
        ("launch", launch),
        ("anonymous", String::new()),
    ];
    let transfer = quoted.id.to_string();
    // In memory from here on, so that a scope is checked before a body.
    for (_, token) in &callers[..4] {
        let network = http.get(world.test.url("/v1/networks")).header("Authorization", token);
        assert!(network.send().await.unwrap().status().is_success());
    }
    let operations = operations(&document);
    pin("scopes", &operations);
    for Operation { id: name, method, path, needs } in operations {
        let [scope] = &needs.unwrap()[..] else { panic!("which scope does {name} require?") };
        let path = path.replace("{account}", "telegram:1").replace("{username}", "ann");
        // A scope that is no longer in memory is checked after what the query lacks.
        let query = if name == "read_events" { "?stream=payments" } else { "" };
        let path = format!("{path}{query}");
        let object = if path.contains("recover") { id.to_string() } else { transfer.clone() };
        // These would end what the others are about.
        let object = if name.starts_with("cancel") { NOTHING.to_owned() } else { object };
        let path = path.replace("{id}", &object);
        if name == "freeze_account" {
            continue;
        }
        for (caller, token) in &callers {
            let request = http.request(method.clone(), world.test.url(&path));
            let request = request.header("Authorization", token);
            let request = match name.as_str() {
                "confirm_transfer" => request.json(&confirm(&quoted, "ann's")),
                _ => with_body(request, &name),
            };
            let answer = request.send().await.unwrap();
            let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
            let what = format!("{name} by {caller}: {status} {body}");
            let has_scope = match scope.as_str() {
                "read" => ["bot", "chat", "read", "admin"].contains(caller),
                "chat" => ["bot", "chat"].contains(caller),
                only => *caller == only,
            };
            match *caller {
                "launch" | "anonymous" => assert_eq!(status, 401, "{what}"),
                _ if !has_scope => {
                    assert!(status == 403 && body.contains("\"forbidden\""), "{what}");
                }
                // It is not pending, which is checked first.
                _ if name == "replace_transfer" => assert_eq!(status, 409, "{what}"),
                _ if scope == "bot" => {
                    assert!(status == 403 && body.contains("\"page_required\""), "{what}");
                }
                _ => assert!(![401, 403].contains(&status), "{what}"),
            }
        }
    }
    // What stops an attacker stays possible in the chat.
    chat.cancel_recovery(telegram(1), id).await.unwrap();
    chat.freeze(telegram(1)).await.unwrap();
}

/// The thief has the chat bot's token, and shows pages under the chat bot to every user.
async fn a_thief_of_the_chat_bot_gets_nothing(world: World) {
    world.onboard().await;
    let (thief, token) = world.client(Scope::Chat).await;
    let read = async |user| world.test.client.account(telegram(user)).await.unwrap();
    let before = (read(1).await, read(2).await, read(3).await);
    let quoted = thief.quote(&quote(1, "@bob", "5")).await.unwrap();
    let open = RecoveryId::random();
    world.open(2, "f").await.request_recovery(&RequestRecovery { id: open }).await.unwrap();

    // Every operation that needs a secret, with the password, which the thief has phished.
    let http = world.test.raw();
    let document: Value =
        http.get(world.test.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    for Operation { id: name, method, path, needs } in operations(&document) {
        if needs != Some(vec!["bot".to_owned()]) {
            continue;
        }
        for user in 1..=3 {
            let path = path.replace("{account}", &format!("telegram:{user}"));
            let id =
                if path.contains("recover") { open.to_string() } else { quoted.id.to_string() };
            let request = http.request(method.clone(), world.test.url(&path.replace("{id}", &id)));
            let request = request.header("Authorization", format!("Bearer {token}"));
            let request = match name.as_str() {
                "confirm_transfer" => request.json(&confirm(&quoted, "ann's")),
                _ => with_body(request, &name),
            };
            let status = request.send().await.unwrap().status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{name} for {user}");
        }
    }
    let created = thief.create_account(&create(3, "eve", "thief's")).await;
    assert_eq!(code(created), Some(ErrorCode::Forbidden));
    let paid = thief.confirm(quoted.id, &confirm(&quoted, "ann's")).await;
    assert_eq!(code(paid), Some(ErrorCode::Forbidden));
    // Openings that Telegram signed, for the thief's page under the chat bot.
    let (confirm, recover) = (format!("c{}", quoted.id), format!("r{open}"));
    for user in 1..=3 {
        for purpose in ["", "n", confirm.as_str(), "p", "f", recover.as_str(), "e", "x", "l"] {
            let init_data = world.signed(CHAT_BOT, user, purpose, now());
            let opened = world.open_with(&init_data, &LaunchKey::random()).await;
            assert_eq!(code(opened), Some(ErrorCode::InvalidLaunch), "{user} {purpose}");
        }
    }
    // A higher limit.
    let set = |amount| SetLimit {
        asset: kms_types::Asset::Native,
        chain_id: None,
        amount: serde_json::from_value(json!(amount)).unwrap(),
    };
    thief.set_limit(telegram(1), &set("1")).await.unwrap();
    let raised = thief.set_limit(telegram(1), &set("2")).await;
    assert_eq!(code(raised), Some(ErrorCode::PageRequired));

    assert_eq!((read(1).await, read(2).await, read(3).await), before);
    let recovery = world.test.client.recovery(telegram(2)).await.unwrap();
    assert_eq!(recovery.unwrap().id, open);
    assert_eq!(world.test.client.recovery(telegram(1)).await.unwrap(), None);
    let transfer = world.test.client.transfer(quoted.id).await.unwrap().unwrap();
    assert_eq!(transfer.state, TransferState::Quoted);
}

/// Ann and Bob opened the page. The thief reports what they like, in any order and at any time.
async fn a_thief_of_the_chat_bot_moves_no_proved_name(world: World) {
    world.onboard().await;
    let (thief, _) = world.client(Scope::Chat).await;
    let (ann, name) = (telegram(1), "ann".parse().unwrap());
    let report = async |user, names: &[&str]| {
        let usernames = names.iter().map(|name| name.parse().unwrap()).collect();
        let seen_at = kms_types::Timestamp(9_000_000_000_000_000);
        let body = SeenUsernames { usernames, seen_at };
        thief.seen_usernames(telegram(user), &body).await.unwrap();
    };
    let address = thief.account(ann).await.unwrap().unwrap().address;
    let mut moved = 0;
    for (user, names) in [
        (2, vec!["ann", "bob"]),
        (1, vec![]),
        (2, vec!["bob", "ann"]),
        (1, vec!["ann"]),
        (2, vec!["ann"]),
        (1, vec!["annie"]),
        (2, vec!["ann"]),
    ] {
        report(user, &names).await;
        let found = thief.name(&name).await.unwrap();
        moved += usize::from(found.is_some_and(|found| found.address != address));
    }
    assert_eq!(moved, 0);
    // Ended, not moved. Ann's next launch, of whatever purpose, puts it right.
    assert_eq!(thief.name(&name).await.unwrap(), None);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    world.open(1, "").await;
    let found = thief.name(&name).await.unwrap().unwrap();
    assert_eq!((found.address, found.payable_from), (address, None));
    assert!(found.proved_at.is_some());
    // A token gives an unproved name to another user, and it cannot be paid for a day.
    world.test.onboard(3, "eve", "eve's").await;
    report(2, &["eve"]).await;
    let found = thief.name(&"eve".parse().unwrap()).await.unwrap().unwrap();
    assert!(found.payable_from.is_some() && found.proved_at.is_none(), "{found:?}");
    let refused = thief.quote(&quote(1, "@eve", "1")).await;
    assert_eq!(code(refused), Some(ErrorCode::NameUnproved));
}
