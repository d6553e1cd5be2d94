//! Many transfers through four servers, of which one is killed.

use std::time::{Duration, Instant};

use crate::row::Row;
use crate::stage::{Stage, WORDS, variable};
use futures::future::join_all;
use kms_server_testing::ServerProcess;
use kms_server_testing::requests::{COIN, confirm, quote};
use kms_types::U256;
use kms_types::wire::{Account, TransferState};
use serde_json::json;

const WALLETS: u64 = 100;
const FIRST: i64 = 10_000;

pub(crate) async fn rows(stage: &Stage) -> Vec<Row> {
    many_transfers(stage).await
}

pub(crate) fn number(stage: &Stage, method: &str, params: serde_json::Value) -> u64 {
    let number: U256 =
        stage.env.anvil.rpc(method, params).unwrap().as_str().unwrap().parse().unwrap();
    number.try_into().unwrap()
}

async fn many_transfers(stage: &Stage) -> Vec<Row> {
    let transfers = variable("BENCH_TRANSFERS", 1_000);
    let mut wallets: Vec<Account> = Vec::new();
    for id in FIRST..FIRST + i64::try_from(WALLETS).unwrap() {
        let account = stage.account(id).await;
        stage.env.fund(&account, COIN).unwrap();
        wallets.push(account);
    }
    let mut servers: Vec<_> =
        (0..4).map(|_| ServerProcess::start(&stage.env, None, "info")).collect();
    let clients: Vec<_> =
        servers.iter().map(|server| server.client(&stage.env, &stage.token)).collect();
    let begun = Instant::now();
    let each = transfers / WALLETS;
    let sender = |index: u64| {
        let clients = clients.clone();
        async move {
            let (id, mut acknowledged) = (FIRST + i64::try_from(index).unwrap(), Vec::new());
            let next = FIRST + i64::try_from((index + 1) % WALLETS).unwrap();
            for send in 0..each {
                let request = quote(id, &format!("@person{next}"), "0.001");
                let mut quoted = None;
                for turn in 0..200 {
                    let at = usize::try_from((index + send + turn) % 4).unwrap();
                    let answer = match &quoted {
                        None => clients[at].quote(&request).await,
                        Some(shown) => {
                            clients[at].confirm(request.id, &confirm(shown, WORDS)).await
                        }
                    };
                    match answer {
                        Ok(found) if found.state == TransferState::Quoted => quoted = Some(found),
                        Ok(_) => {
                            acknowledged.push(request.id);
                            break;
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                    }
                }
            }
            acknowledged
        }
    };
    let kill = async {
        let deadline = Instant::now() + Duration::from_secs(600);
        let half = transfers / 2;
        let sent = |wallets: &[Account]| -> u64 {
            let count = |wallet: &Account| {
                let params = json!([wallet.address.to_string(), "latest"]);
                number(stage, "eth_getTransactionCount", params)
            };
            wallets.iter().map(count).sum()
        };
        while sent(&wallets) < half && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // SIGKILL.
        drop(servers.remove(0));
    };
    let (acknowledged, ()) = tokio::join!(join_all((0..WALLETS).map(sender)), kill);
    let acknowledged: Vec<_> = acknowledged.into_iter().flatten().collect();
    stage.env.anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    let (mut made, mut lost) = (0_u64, 0_u64);
    for id in &acknowledged {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = stage.client.transfer(*id).await.unwrap().unwrap();
            match found.state {
                TransferState::Mined | TransferState::Final => made += 1,
                _ if Instant::now() > deadline => lost += 1,
                _ => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            }
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (mut mined, mut gaps) = (0, 0);
    for wallet in &wallets {
        let count = |block| {
            let params = json!([wallet.address.to_string(), block]);
            number(stage, "eth_getTransactionCount", params)
        };
        mined += count("latest");
        gaps += count("pending") - count("latest");
    }
    let about = format!("{transfers} transfers, {WALLETS} wallets, 4 servers, 1 killed: ");
    let row = |name: &str, measured: u64, limit: u64, target: f64| Row {
        name: format!("{about}{name}"),
        measured: measured as f64,
        limit: limit as f64,
        unit: "",
        target,
    };
    vec![
        row("acknowledged and lost", lost, 1, 0.0),
        row("mined, of acknowledged", mined, made, 1.0),
        row("pending behind a gap", gaps, 1, 0.0),
        Row {
            name: format!("{about}time"),
            measured: seconds,
            limit: 600.0,
            unit: "s",
            target: 1.0,
        },
    ]
}
