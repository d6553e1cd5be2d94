//! What an attacker gains who has the chat bot: its bearer token, and pages that the attacker shows
//! under it. With two bots and the scope `chat`, nothing; the other tests document what an operator
//! gives up by one bot for both, or by the scope `bot`.

use kms_client::{Client, Vault};
use kms_server_testing::Stores;
use kms_server_testing::requests::{confirm, create, hash, quote, telegram};
use kms_store::Scope;
use kms_types::wire::{
    ChangePassword, CompleteRecovery, ConfirmShown, ExportKey, NewWallet, RequestRecovery,
    SeenUsernames, SetLimit, SetLimitByPassword, Transfer, TransferState,
};
use kms_types::{LaunchKey, PasswordHash, RecoveryId, Timestamp};
use serde_json::json;

use crate::page::{CHAT_BOT, VAULT_BOT, World, now};

/// What the attacker got, by kind.
#[derive(Debug, Default, PartialEq)]
struct Gains {
    /// A wallet whose password the attacker knows, of a user who has none.
    wallets: usize,
    /// Exported keys.
    exports: usize,
    /// Wallets recovered under the attacker's password.
    recoveries: usize,
    /// Names that pay another account.
    names: usize,
    /// Higher spending limits, which apply after a day.
    raises: usize,
    /// Payments.
    payments: usize,
    /// Replaced passwords.
    passwords: usize,
}

struct Thief<'a> {
    world: &'a World,
    client: Client,
    /// The password that Ann typed on a look-alike page, if she did.
    phished: Option<&'static str>,
}

/// How Ann and Bob made their wallets.
#[derive(Clone, Copy)]
enum Made {
    OnPage,
    InChat,
}

/// Everything that the attacker can try, each by the token and by a tap of its victim.
async fn gains(world: &World, scope: Scope, made: Made, phished: Option<&'static str>) -> Gains {
    match made {
        Made::OnPage => world.onboard().await,
        Made::InChat => drop(world.test.ann_and_bob().await),
    }
    let (client, _) = world.client(scope).await;
    let thief = Thief { world, client, phished };
    Gains {
        wallets: thief.makes_a_wallet().await.into(),
        payments: thief.pays().await.into(),
        exports: thief.exports().await.into(),
        recoveries: thief.recovers().await.into(),
        names: thief.moves_a_name().await.into(),
        raises: thief.raises_a_limit().await.into(),
        passwords: thief.replaces_the_password().await.into(),
    }
}

impl Thief<'_> {
    /// A victim opens the attacker's page, which is shown under the chat bot.
    async fn tapped(&self, victim: i64, purpose: &str) -> Option<Vault> {
        let init_data = self.world.signed(CHAT_BOT, victim, purpose, now());
        self.world.open_with(&init_data, &LaunchKey::random()).await.ok()
    }

    /// Ann's password, or a guess.
    fn password(&self) -> PasswordHash {
        hash(self.phished.unwrap_or("guess"))
    }

    async fn makes_a_wallet(&self) -> bool {
        // An error is what the attacker gets.
        let _ = self.client.create_account(&create(3, "eve", "thief's")).await;
        if let Some(page) = self.tapped(3, "n").await {
            let _ = page.create(&NewWallet { password_hash: hash("thief's") }).await;
        }
        self.client.account(telegram(3)).await.unwrap().is_some()
    }

    async fn pays(&self) -> bool {
        let quoted = self.client.quote(&quote(1, "@bob", "1")).await.unwrap();
        let paid = self.confirms(&quoted).await;
        let now = self.client.transfer(quoted.id).await.unwrap().unwrap();
        assert_eq!(paid, now.state != TransferState::Quoted);
        paid
    }

    async fn confirms(&self, quoted: &Transfer) -> bool {
        let body = confirm(quoted, self.phished.unwrap_or("guess"));
        if self.client.confirm(quoted.id, &body).await.is_ok() {
            return true;
        }
        let Some(page) = self.tapped(1, &format!("c{}", quoted.id)).await else { return false };
        let view = page.transfer().await.unwrap().view;
        page.confirm(&ConfirmShown { password_hash: self.password(), view }).await.is_ok()
    }

    async fn exports(&self) -> bool {
        let body = || ExportKey { password_hash: self.password() };
        if self.client.export(telegram(1), &body()).await.is_ok() {
            return true;
        }
        match self.tapped(1, "x").await {
            Some(page) => page.export(&body()).await.is_ok(),
            None => false,
        }
    }

    /// Bob's wallet. The waits of this server are over at once.
    async fn recovers(&self) -> bool {
        let id = RecoveryId::random();
        let new = || CompleteRecovery { new_password_hash: hash("thief's") };
        let asked = self.client.request_recovery(telegram(2), &RequestRecovery { id }).await;
        if asked.is_ok() {
            return self.client.complete_recovery(telegram(2), id, &new()).await.is_ok();
        }
        let Some(page) = self.tapped(2, "f").await else { return false };
        page.request_recovery(&RequestRecovery { id }).await.unwrap();
        let page = self.tapped(2, &format!("r{id}")).await.unwrap();
        page.complete_recovery(&new()).await.is_ok()
    }

    async fn moves_a_name(&self) -> bool {
        let name = "ann".parse().unwrap();
        let before = self.client.name(&name).await.unwrap().unwrap().address;
        let seen_at = Timestamp(9_000_000_000_000_000);
        let usernames = [name.clone()].into_iter().collect();
        self.client
            .seen_usernames(telegram(2), &SeenUsernames { usernames, seen_at })
            .await
            .unwrap();
        let after = self.client.name(&name).await.unwrap();
        after.is_some_and(|after| after.address != before)
    }

    async fn raises_a_limit(&self) -> bool {
        let to = |amount| SetLimit {
            asset: kms_types::Asset::Native,
            chain_id: None,
            amount: serde_json::from_value(json!(amount)).unwrap(),
        };
        self.client.set_limit(telegram(1), &to("1")).await.unwrap();
        if self.client.set_limit(telegram(1), &to("2")).await.is_ok() {
            return true;
        }
        match self.tapped(1, "l").await {
            Some(page) => {
                let SetLimit { asset, chain_id, amount } = to("2");
                let password_hash = self.password();
                page.set_limit(&SetLimitByPassword { asset, chain_id, amount, password_hash })
                    .await
                    .is_ok()
            }
            None => false,
        }
    }

    async fn replaces_the_password(&self) -> bool {
        let body = || ChangePassword {
            old_password_hash: self.password(),
            new_password_hash: hash("thief's"),
        };
        if self.client.change_password(telegram(1), &body()).await.is_ok() {
            return true;
        }
        match self.tapped(1, "p").await {
            Some(page) => page.change_password(&body()).await.is_ok(),
            None => false,
        }
    }
}

const STORES: [Stores; 2] = [Stores::Embedded, Stores::Servers];

#[actix_web::test]
async fn with_two_bots_and_the_scope_chat_the_attacker_gains_nothing() {
    for stores in STORES {
        let world = World::of_bot(stores, VAULT_BOT).await;
        let gained = gains(&world, Scope::Chat, Made::OnPage, Some("ann's")).await;
        assert_eq!(gained, Gains::default());
    }
    // Also where the wallets were made in a chat before.
    let world = World::of_bot(Stores::Embedded, VAULT_BOT).await;
    let gained = gains(&world, Scope::Chat, Made::InChat, Some("ann's password")).await;
    assert_eq!(gained, Gains { names: 1, ..Gains::default() }, "a name that nothing proved");
}

/// One tap of each victim, and no password: what needs one stays closed.
#[actix_web::test]
async fn one_bot_for_both_gives_up_what_a_tap_opens() {
    for stores in STORES {
        let world = World::of_bot(stores, CHAT_BOT).await;
        let gained = gains(&world, Scope::Chat, Made::OnPage, None).await;
        assert_eq!(gained, Gains { wallets: 1, recoveries: 1, ..Gains::default() });
    }
    let world = World::of_bot(Stores::Embedded, CHAT_BOT).await;
    let gained = gains(&world, Scope::Chat, Made::OnPage, Some("ann's")).await;
    let all = Gains {
        wallets: 1,
        exports: 1,
        recoveries: 1,
        names: 0,
        raises: 1,
        payments: 1,
        passwords: 1,
    };
    assert_eq!(gained, all, "with the password that a look-alike page caught");
}

#[actix_web::test]
async fn the_scope_bot_gives_up_the_accounts_that_were_never_used_on_the_page() {
    for stores in STORES {
        let world = World::of_bot(stores, VAULT_BOT).await;
        let gained = gains(&world, Scope::Bot, Made::InChat, None).await;
        let given = Gains { wallets: 1, recoveries: 1, names: 1, raises: 1, ..Gains::default() };
        assert_eq!(gained, given, "without any tap");
    }
    let world = World::of_bot(Stores::Embedded, VAULT_BOT).await;
    let gained = gains(&world, Scope::Bot, Made::InChat, Some("ann's password")).await;
    let all = Gains {
        wallets: 1,
        exports: 1,
        recoveries: 1,
        names: 1,
        raises: 1,
        payments: 1,
        passwords: 1,
    };
    assert_eq!(gained, all, "with a password that was typed in the chat");
    // Those that were used on the page are out of reach; a stranger's wallet is not.
    let world = World::of_bot(Stores::Embedded, VAULT_BOT).await;
    let gained = gains(&world, Scope::Bot, Made::OnPage, Some("ann's")).await;
    assert_eq!(gained, Gains { wallets: 1, ..Gains::default() });
}
