//! How many connections one peer may have open at the public listener, so that one attacker
//! cannot take all of them. The peer is that of the connection: no header is trusted.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::ResponseError;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::middleware::Next;
use actix_web::web::Data;

use crate::error::ApiError;

/// The open connections of each peer that sent a request.
#[derive(Debug)]
pub(crate) struct Peers {
    limit: u32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// The data of a connection: it is counted from its first request on. One without a request is
/// closed by the time limit of requests.
#[derive(Debug, Default)]
pub(crate) struct Connection(OnceCell<Counted>);

/// A connection that is counted until it is closed.
#[derive(Debug)]
struct Counted {
    peers: Arc<Peers>,
    peer: IpAddr,
    is_over: bool,
}

impl Peers {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, open: Mutex::default() }
    }

    fn count(self: &Arc<Self>, peer: IpAddr) -> Counted {
        let mut open = self.lock();
        let count = open.entry(peer).or_default();
        *count = count.saturating_add(1);
        let is_over = self.limit > 0 && *count > self.limit;
        Counted { peers: Arc::clone(self), peer, is_over }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.peers.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// Refuses a request on a connection above the limit, and closes the connection.
pub(crate) async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if !is_over(&request) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let detail = "too many connections from your network; close some of them";
    let mut response = ApiError::rate_limited(detail, Duration::from_secs(15)).error_response();
    response.head_mut().set_connection_type(ConnectionType::Close);
    Ok(request.into_response(response).map_into_right_body())
}

fn is_over(request: &ServiceRequest) -> bool {
    let connection = request.request().conn_data::<Connection>();
    let peers = request.app_data::<Data<Peers>>();
    let (Some(connection), Some(peers), Some(peer)) = (connection, peers, request.peer_addr())
    else {
        return false;
    };
    connection.0.get_or_init(|| peers.count(network(peer.ip()))).is_over
}

/// The address of an IPv4 peer, or the network that one IPv6 user has.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_until_it_is_closed_and_for_its_own_peer() {
        let peers = Arc::new(Peers::new(2));
        let [ann, bob]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|peer| peer.parse().unwrap());
        let two = [peers.count(ann), peers.count(ann)];
        assert!(two.iter().all(|one| !one.is_over));
        assert!(peers.count(ann).is_over);
        assert!(!peers.count(bob).is_over);
        drop(two);
        assert!(!peers.count(ann).is_over);
        assert!(peers.lock().is_empty());
    }

    #[test]
    fn an_ipv6_user_is_one_peer() {
        let network = |peer: &str| super::network(peer.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
