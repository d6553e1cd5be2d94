//! The operations listener: liveness, readiness and metrics, over plain HTTP without a token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, guard};
use kms_process::CancellationToken;
use metrics::gauge;
use serde_json::json;

use crate::context::Context;
use crate::delivery::Delivery;

/// How often what is only counted is published.
const INTERVAL: Duration = Duration::from_secs(5);

/// What readiness depends on.
struct Health {
    context: Arc<Context>,
    shutdown: CancellationToken,
}

/// The server of the listener, and its address.
pub(crate) fn server(
    listen: SocketAddr,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> std::io::Result<(Server, SocketAddr)> {
    let health = Data::new(Health { context, shutdown });
    let server = HttpServer::new(move || App::new().app_data(health.clone()).configure(configure))
        .workers(1)
        .client_request_timeout(INTERVAL)
        .disable_signals()
        .bind(listen)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    Ok((server.run(), address))
}

/// Runs until the bot stops.
pub(crate) async fn serve(server: Server, shutdown: CancellationToken) -> std::io::Result<()> {
    let handle = server.handle();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => ended,
        // The server itself carries out the stop.
        () = shutdown.cancelled() => tokio::join!(handle.stop(false), server).1,
    }
}

/// Publishes the age of the oldest notice, and folds recorded durations, until the bot stops.
pub(crate) async fn publish(delivery: Arc<Delivery>, shutdown: CancellationToken) {
    loop {
        gauge!("kms_bot_oldest_notice_seconds").set(delivery.oldest().as_secs_f64());
        kms_process::metrics().run_upkeep();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn configure(config: &mut ServiceConfig) {
    let read = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    config
        .route("/healthz", read().to(async || HttpResponse::Ok().json(json!({ "status": "ok" }))))
        .route("/readyz", read().to(ready))
        .route("/metrics", read().to(metrics));
}

/// Readiness: Telegram answers, and the bot is not about to stop.
async fn ready(health: Data<Health>) -> HttpResponse {
    let draining = health.shutdown.is_cancelled();
    let telegram = health.context.telegram.is_reachable();
    let mut response = match telegram && !draining {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    response.json(json!({ "draining": draining, "telegram": if telegram { "ok" } else { "down" } }))
}

async fn metrics() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(kms_process::metrics().render())
}
