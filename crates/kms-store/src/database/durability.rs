//! Whether a commit survives a crash of the database.

use diesel::prelude::*;
use diesel::sql_types::Text;

use super::{ConnectError, Database};
use crate::dialect::Dialect;

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Database {
    /// Checks that a commit is on disk when PostgreSQL acknowledges it. Each connection sets this
    /// when it is opened; a pooler between server and database may drop such settings.
    ///
    /// # Errors
    /// `NotDurable` if commits are acknowledged before they are on disk.
    pub async fn check_durability(&self) -> Result<(), ConnectError> {
        match self.dialect {
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => return Ok(()),
            #[cfg(feature = "postgres")]
            Dialect::Postgres => {}
        }
        let value = self.blocking(|connection| {
            let query = "select current_setting('synchronous_commit') as value";
            Ok(diesel::sql_query(query).get_result::<Setting>(connection)?.value)
        });
        match value.await?.as_str() {
            "on" | "remote_apply" => Ok(()),
            weaker => Err(ConnectError::NotDurable { synchronous_commit: weaker.to_owned() }),
        }
    }
}
