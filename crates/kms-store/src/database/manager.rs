//! How the pool opens connections.

use diesel::r2d2::{Error, ManageConnection, R2D2Connection};
use diesel::{Connection as _, ConnectionError};

use super::AnyConnection;
use crate::dialect::Dialect;

/// Opens connections to the one database that the URL names. Diesel's own manager would try both
/// kinds in turn, and so hide why PostgreSQL cannot be reached.
pub(crate) struct ConnectionManager {
    pub(super) dialect: Dialect,
    pub(super) target: String,
}

impl ManageConnection for ConnectionManager {
    type Connection = AnyConnection;
    type Error = Error;

    fn connect(&self) -> Result<AnyConnection, Error> {
        let opened = match self.dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {
                diesel::PgConnection::establish(&self.target).map(AnyConnection::Postgres)
            }
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => {
                diesel::SqliteConnection::establish(&self.target).map(AnyConnection::Sqlite)
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
