//! Requests that succeed, so that schemathesis sees every operation's answer to one.
//!
//! Generated requests cannot: they would have to guess a password, a code from an e-mail, or the
//! price in a quote. Each seed is sent in place of a generated request of its operation; one with a
//! body is sent until it succeeds, one without lends its path to many.

use std::time::Duration;

use anyhow::Context;
use kms_server::Secret;
use kms_server::config::MailSettings;
use kms_server_testing::requests::{COIN, confirm, hash, quote, telegram};
use kms_server_testing::{TestEnv, TestServer};
use kms_testkit::Mailbox;
use kms_types::wire::{
    ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ExportKey, ReplaceTransfer,
    RequestRecovery, Transfer, TransferState, Unfreeze,
};
use kms_types::{RecoveryId, ReplacementId};
use serde::Serialize;
use serde_json::{Value, json};

/// Above the ids that schemathesis takes for boundaries.
const FIRST: i64 = 7_000_001;
const WORDS: &str = "the password of every seeded account";
const PATIENCE: u32 = 600;

/// Prepares accounts, transfers and recoveries, and collects requests about them.
pub(crate) struct Seeds<'a> {
    server: &'a TestServer,
    mailbox: &'a Mailbox,
    accounts: i64,
    requests: Vec<Value>,
}

/// Lets a server send e-mail, so that codes can be read.
pub(crate) fn with_mail(env: &mut TestEnv) -> anyhow::Result<Mailbox> {
    let mailbox = Mailbox::start()?;
    env.mail = Some(MailSettings {
        url: Secret::from(mailbox.url()).try_into()?,
        from: "Wallet <wallet@example.org>".to_owned(),
        public_url: "https://kms.example.org".to_owned().try_into()?,
    });
    env.recovery.sends_codes = true;
    Ok(mailbox)
}

/// Prepares everything and returns the requests as JSON.
pub(crate) async fn make(server: &TestServer, mailbox: &Mailbox) -> anyhow::Result<String> {
    let mut seeds = Seeds { server, mailbox, accounts: 0, requests: Vec::new() };
    seeds.of_accounts().await?;
    seeds.of_passwords().await?;
    seeds.of_recoveries().await?;
    seeds.of_transfers().await?;
    Ok(serde_json::to_string(&seeds.requests)?)
}

impl Seeds<'_> {
    /// Adds a request with this body.
    fn add(&mut self, operation: &str, path: &Value, body: impl Serialize) -> anyhow::Result<()> {
        let body = serde_json::to_value(body)?;
        self.requests.push(json!({ "operation": operation, "path": path, "body": body }));
        Ok(())
    }

    /// Lends this path to generated requests of these operations.
    fn lend(&mut self, path: &Value, operations: &[&str]) {
        let requests = operations.iter();
        self.requests.extend(requests.map(|name| json!({ "operation": name, "path": path })));
    }

    /// Creates an account.
    async fn account(&mut self) -> (i64, Value) {
        let id = FIRST + self.accounts;
        self.accounts += 1;
        self.server.onboard(id, &format!("seeded{id}"), WORDS).await;
        (id, json!({ "account": format!("telegram:{id}") }))
    }

    async fn of_accounts(&mut self) -> anyhow::Result<()> {
        let (id, path) = self.account().await;
        let reads = ["read_account", "read_balance", "read_limits", "list_transfers"];
        self.lend(&path, &reads);
        self.lend(&path, &["set_limit", "change_mobile", "report_usernames", "read_recovery"]);
        self.lend(&json!({ "username": format!("seeded{id}") }), &["resolve_name"]);

        let (_, path) = self.account().await;
        self.lend(&path, &["freeze_account"]);
        let (id, path) = self.account().await;
        self.server.client.freeze(telegram(id)).await?;
        self.add("unfreeze_account", &path, Unfreeze { password_hash: hash(WORDS) })
    }

    async fn of_passwords(&mut self) -> anyhow::Result<()> {
        let (_, path) = self.account().await;
        self.add("export_key", &path, ExportKey { password_hash: hash(WORDS) })?;
        let (_, path) = self.account().await;
        let (old_password_hash, new_password_hash) = (hash(WORDS), hash("new"));
        self.add(
            "change_password",
            &path,
            ChangePassword { old_password_hash, new_password_hash },
        )?;
        let (_, path) = self.account().await;
        self.add("change_email", &path, new_email("changed@example.org")?)?;
        let (id, path) = self.account().await;
        let code = self.request_email(id, "confirmed@example.org").await?;
        self.add("confirm_email", &path, code)
    }

    /// Requests that an account's e-mails go to this address, and returns the code of the e-mail.
    async fn request_email(&self, id: i64, address: &str) -> anyhow::Result<ConfirmCode> {
        self.server.client.change_email(telegram(id), &new_email(address)?).await?;
        self.code(address, 0).await
    }

    /// The code in the first e-mail to an address that has one, but for some earlier e-mails.
    async fn code(&self, address: &str, earlier: usize) -> anyhow::Result<ConfirmCode> {
        for _ in 0..PATIENCE {
            let mails = self.mailbox.mails_to(address);
            let mut lines = mails.iter().skip(earlier).flat_map(|mail| mail.body.lines());
            if let Some(code) = lines.find_map(|line| line.strip_prefix("    ")) {
                return Ok(ConfirmCode { code: code.parse()? });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("no code was sent to {address}")
    }

    async fn of_recoveries(&mut self) -> anyhow::Result<()> {
        let (_, path) = self.account().await;
        self.add("request_recovery", &path, RequestRecovery { id: RecoveryId::random() })?;
        let (id, path) = self.account().await;
        let cancelled = in_recovery(&path, self.open_recovery(id).await?);
        self.lend(&path, &["read_recovery"]);
        self.lend(&cancelled, &["cancel_recovery"]);
        let (id, path) = self.account().await;
        let ready = in_recovery(&path, self.open_recovery(id).await?);
        let body = CompleteRecovery { new_password_hash: hash("new") };
        self.add("complete_recovery", &ready, body)?;

        let ((id, path), address) = (self.account().await, "recovering@example.org");
        let code = self.request_email(id, address).await?;
        self.server.client.confirm_email(telegram(id), &code).await?;
        let waiting = in_recovery(&path, self.open_recovery(id).await?);
        let code = self.code(address, 1).await?;
        self.add("confirm_recovery", &waiting, code)
    }

    async fn open_recovery(&self, id: i64) -> anyhow::Result<RecoveryId> {
        let recovery = RecoveryId::random();
        let body = RequestRecovery { id: recovery };
        self.server.client.request_recovery(telegram(id), &body).await?;
        Ok(recovery)
    }

    async fn of_transfers(&mut self) -> anyhow::Result<()> {
        let ((recipient, _), (sender, _)) = (self.account().await, self.account().await);
        let (client, env) = (&self.server.client, &self.server.env);
        let account = client.account(telegram(sender)).await?.context("no sender")?;
        env.fund(&account, 10 * COIN)?;
        let name = format!("@seeded{recipient}");
        let quoted = async || client.quote(&quote(sender, &name, "0.01")).await;
        let paid = quoted().await?;
        client.confirm(paid.id, &confirm(&paid, WORDS)).await?;
        self.server.until(paid.id, TransferState::Mined).await;

        // From here on, nothing is mined, so what is sent stays pending.
        env.anvil.rpc("evm_setAutomine", json!([false]))?;
        let pending = quoted().await?;
        client.confirm(pending.id, &confirm(&pending, WORDS)).await?;
        self.server.until(pending.id, TransferState::Broadcast).await;
        let fee = client.replacement(pending.id).await?;
        let (cancelled, confirmed) = (quoted().await?, quoted().await?);

        self.lend(&of(&paid), &["read_transfer"]);
        self.lend(&of(&cancelled), &["cancel_transfer"]);
        self.lend(&of(&pending), &["read_replacement_fee"]);
        let replacement = ReplaceTransfer {
            id: ReplacementId::random(),
            password_hash: hash(WORDS),
            max_fee: fee.max_fee,
        };
        self.add("replace_transfer", &of(&pending), replacement)?;
        self.add("confirm_transfer", &of(&confirmed), confirm(&confirmed, WORDS))?;
        self.add("quote_transfer", &json!({}), quote(sender, &name, "0.01"))
    }
}

fn of(transfer: &Transfer) -> Value {
    json!({ "id": transfer.id })
}

fn in_recovery(account: &Value, id: RecoveryId) -> Value {
    json!({ "account": account.get("account"), "id": id })
}

fn new_email(address: &str) -> anyhow::Result<ChangeEmail> {
    Ok(ChangeEmail { email: Some(address.parse()?), password_hash: hash(WORDS) })
}
