//! How the pool opens connections.

use std::sync::Arc;

use diesel::r2d2::{Error, ManageConnection, R2D2Connection};
use diesel::{Connection as _, ConnectionError};

use super::{AnyConnection, parse};
use crate::dialect::Dialect;

/// Opens connections to the one database that the URL names. Diesel's own manager would try both
/// kinds in turn, and so hide why PostgreSQL cannot be reached.
pub(crate) struct ConnectionManager {
    pub(super) dialect: Dialect,
    pub(super) url: UrlSource,
}

/// Returns the URL for the next connection: its password may have been replaced, or may be a token
/// that is valid for minutes.
pub type UrlSource = Arc<dyn Fn() -> Result<String, UrlSourceError> + Send + Sync>;

/// Why there is no URL. Must not show it.
pub type UrlSourceError = Box<dyn std::error::Error + Send + Sync>;

impl ManageConnection for ConnectionManager {
    type Connection = AnyConnection;
    type Error = Error;

    fn connect(&self) -> Result<AnyConnection, Error> {
        let refused = |error: String| Error::ConnectionError(ConnectionError::BadConnection(error));
        let url = (self.url)().map_err(|error| refused(error.to_string()))?;
        let (dialect, target, _) = parse(&url, 1).map_err(|error| refused(error.to_string()))?;
        if dialect != self.dialect {
            return Err(refused("the URL is of another kind of database".to_owned()));
        }
        let opened = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                diesel::PgConnection::establish(&target).map(AnyConnection::Postgres)
            }
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                diesel::SqliteConnection::establish(&target).map(AnyConnection::Sqlite)
            }
        };
        opened.map_err(|error| Error::ConnectionError(in_one_line(error)))
    }

    fn is_valid(&self, connection: &mut AnyConnection) -> Result<(), Error> {
        connection.ping().map_err(Error::QueryError)
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
    }
}

/// libpq reports in several lines.
fn in_one_line(error: ConnectionError) -> ConnectionError {
    match error {
        ConnectionError::BadConnection(text) => {
            ConnectionError::BadConnection(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        other => other,
    }
}
