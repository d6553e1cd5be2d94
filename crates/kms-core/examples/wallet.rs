//! The life of a wallet, over SQLite in memory:
//! `cargo run -p kms-core --example wallet`.

use std::sync::Arc;

use kms_core::audit::{Action, Caller};
use kms_core::{
    CreateWallet, Created, Custody, CustodyError, KdfParams, KdfPool, KeyRing, Ports, ServerKeys,
};
use kms_key_local::LocalMasterKey;
use kms_store::{Database, SqliteKeyDatabase};
use kms_types::{PasswordHash, RecoveryId, Timestamp, TransferId};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // New stores and keys, which end with the process.
    let keys = Arc::new(ServerKeys::random());
    let database = Database::connect("sqlite::memory:", 1, Arc::clone(&keys)).await?;
    database.migrate().await?;
    let scks = Arc::new(SqliteKeyDatabase::open(":memory:").await?);
    let ports = Ports::new(Arc::new(database), scks);
    println!("generating a KMS key (RSA-3072) takes a moment");
    let kms_key = LocalMasterKey::generate("example".parse()?, 3072)?;
    let ring = KeyRing::new(Arc::new(kms_key), [])?;
    let pool = KdfPool::new(std::thread::available_parallelism()?, 16)?;
    let custody = Custody::new(ports, ring, keys, pool, KdfParams::default());
    let caller = Caller::new("example", "1");
    let now = Timestamp(0);

    // Stands for a password that a client has stretched (`kms-client::hash_password`).
    let hash = |byte| PasswordHash::fill(|bytes| bytes.fill(byte));
    let telegram_id = 4711.try_into()?;
    let password = hash(1);
    let request = CreateWallet { telegram_id, password, names: None, mobile: None, email: None };
    // A server counts new wallets here.
    let admit = || async { Ok::<_, CustodyError>(()) };
    let (Created::New(account) | Created::Existing(account)) =
        custody.create(request, &caller, now, admit).await?;
    println!("wallet   {}", account.wallet.address);

    // The wallet is open for one closure, which gets signatures but never the key.
    let send = Action::Send(TransferId::random());
    let owner = telegram_id.into();
    let sign = |wallet: kms_core::OpenWallet| async move {
        Ok::<_, CustodyError>(wallet.sign_hash(&[7; 32]))
    };
    let signature = custody.with_wallet(owner, hash(1), send, &caller, now, sign).await?;
    println!("signed   r = {}", hex::encode(signature.r));

    let within_limits = |_| async { Ok::<_, CustodyError>(()) };
    custody.change_password(owner, (hash(1), hash(2)), &caller, now, within_limits).await?;
    let old = custody.with_wallet(owner, hash(1), send, &caller, now, sign).await;
    println!("changed  the old password: {}", old.err().map_or("works".into(), |e| e.to_string()));

    // A forgotten password: the KMS key unwraps the SCK, and the wallet is sealed under a new
    // password. The owner has two days to cancel, which the example skips.
    let id = RecoveryId::random();
    let ready = custody.request_recovery(owner, id, &caller, now).await?.ready_at;
    custody.complete_recovery(owner, id, hash(3), &caller, ready).await?;
    custody.with_wallet(owner, hash(3), send, &caller, ready, sign).await?;
    println!("recovered  the same key signs with the new password");
    Ok(())
}
