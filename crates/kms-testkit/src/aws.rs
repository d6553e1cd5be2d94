//! What the stand-ins for AWS have in common.

use std::io;
use std::net::SocketAddr;

use actix_web::dev::ServerHandle;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};

/// Serves on a free port of 127.0.0.1. Call it inside a tokio runtime.
pub(crate) fn serve(
    configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> io::Result<(SocketAddr, ServerHandle)> {
    let server = HttpServer::new(move || App::new().configure(configure.clone()))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))?;
    let address = server.addrs().first().copied();
    let address = address.ok_or_else(|| io::Error::other("no listening address"))?;
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok((address, handle))
}
