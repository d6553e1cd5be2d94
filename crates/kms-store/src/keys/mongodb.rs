//! MongoDB, with a database and credentials of its own.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use kms_core::audit::Checkpoint;
use kms_core::ports::{SckStore, StoreError, WrappedSck};
use kms_types::SckId;
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::error::ErrorKind;
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress,
    Tls, WriteConcern,
};
use mongodb::{Client, Collection};
use serde::{Deserialize, Serialize};

use super::{KeyDatabase, KeyDatabaseGrants, KeyDatabaseOwner, unavailable};
use crate::convert::RowRef;
use crate::database::ConnectError;

/// The deadline of one operation.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The id of the one document that names the owner.
const OWNER: &str = "accounts";

/// What a server does: `deploy/mongodb/roles.js` permits this.
const ACTIONS: [(&str, &[Action]); 4] = [
    ("wrapped_scks", &[Action::Find, Action::Insert, Action::Update, Action::Remove]),
    (CHECKPOINTS, &[Action::Find, Action::Insert]),
    ("owner", &[Action::Find, Action::Insert, Action::Update]),
    ("pause", &[Action::Find, Action::Insert, Action::Update]),
];
const CHECKPOINTS: &str = "audit_checkpoints";

/// An action of a role of MongoDB.
#[derive(Clone, Copy, Debug)]
enum Action {
    Find,
    Insert,
    Update,
    Remove,
}

impl Action {
    /// The action as a command that changes nothing.
    fn attempt(self, collection: &str) -> Document {
        // No document has this id; and MongoDB inserts none whose id is an array.
        let nothing = doc! { "_id": "" };
        match self {
            Self::Find => doc! { "find": collection, "filter": nothing },
            Self::Insert => doc! { "insert": collection, "documents": [{ "_id": [] }] },
            Self::Update => {
                let set = doc! { "$set": { "line": "" } };
                doc! { "update": collection, "updates": [{ "q": nothing, "u": set }] }
            }
            Self::Remove => {
                doc! { "delete": collection, "deletes": [{ "q": nothing, "limit": 1 }] }
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }
}

/// A key database in MongoDB. Writes wait for a majority of the replicas and their journals.
#[derive(Clone, Debug)]
pub(super) struct MongoKeyDatabase {
    client: Client,
    scks: Collection<SckDocument>,
    checkpoints: Collection<CheckpointDocument>,
    owner: Collection<OwnerDocument>,
    pause: Collection<PauseDocument>,
    is_encrypted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct SckDocument {
    #[serde(rename = "_id")]
    id: String,
    account: String,
    master_key: String,
    bytes: Binary,
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckpointDocument {
    sequence: i64,
    line: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct PauseDocument {
    #[serde(rename = "_id")]
    name: String,
    line: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct OwnerDocument {
    #[serde(rename = "_id")]
    id: String,
    identity: String,
    claim: String,
}

/// An SCK as it is listed.
#[derive(Debug, Serialize, Deserialize)]
struct ListedDocument {
    #[serde(rename = "_id")]
    id: String,
    account: String,
}

impl From<WrappedSck> for SckDocument {
    fn from(sck: WrappedSck) -> Self {
        Self {
            id: sck.id.to_string(),
            account: sck.account.to_string(),
            master_key: sck.master_key.to_string(),
            bytes: Binary { subtype: BinarySubtype::Generic, bytes: sck.bytes },
        }
    }
}

impl MongoKeyDatabase {
    /// Configures a client for `mongodb://…` or `mongodb+srv://…`; it connects when it is used.
    ///
    /// # Errors
    /// When the URL cannot be parsed.
    pub(super) async fn connect(url: &str, database: &str) -> Result<Self, ConnectError> {
        if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
            return Err(ConnectError::Scheme { expected: "mongodb:// or mongodb+srv://" });
        }
        let open = |error: mongodb::error::Error| ConnectError::Open(Box::new(error));
        let mut options = ClientOptions::parse(url).await.map_err(|error| match *error.kind {
            // Its text quotes the URL, and with it a password that is not percent-encoded.
            ErrorKind::InvalidArgument { .. } => ConnectError::Url,
            _ => open(error),
        })?;
        options.app_name.get_or_insert_with(|| "kms-server".to_owned());
        options.connect_timeout = Some(Duration::from_secs(2));
        options.server_selection_timeout = Some(Duration::from_secs(3));
        options.retry_writes = Some(true);
        options.retry_reads = Some(true);
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let mut concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        concern.w_timeout = Some(TIMEOUT);
        options.write_concern = Some(concern);
        let is_encrypted = matches!(options.tls, Some(Tls::Enabled(_)));
        let client = Client::with_options(options).map_err(open)?;
        let database = client.database(database);
        let scks = database.collection("wrapped_scks");
        let checkpoints = database.collection(CHECKPOINTS);
        let owner = database.collection("owner");
        let pause = database.collection("pause");
        Ok(Self { client, scks, checkpoints, owner, pause, is_encrypted })
    }

    async fn may(&self, action: Action, collection: &str) -> Result<bool, StoreError> {
        const UNAUTHORIZED: i32 = 13;
        let database = self.client.database(&self.scks.namespace().db);
        let attempt = database.run_command(action.attempt(collection)).into_future();
        match tokio::time::timeout(TIMEOUT, attempt).await.map_err(unavailable)? {
            Ok(_) => Ok(true),
            Err(error) => match &*error.kind {
                ErrorKind::Command(command) if command.code == UNAUTHORIZED => Ok(false),
                _ => Err(unavailable(error)),
            },
        }
    }
}

#[async_trait]
impl SckStore for MongoKeyDatabase {
    async fn put_sck(&self, sck: WrappedSck) -> Result<(), StoreError> {
        let document = SckDocument::from(sck);
        within(self.scks.insert_one(&document).into_future()).await.map(drop)
    }

    async fn replace_sck(&self, old: &WrappedSck, new: WrappedSck) -> Result<bool, StoreError> {
        let (old, new) = (SckDocument::from(old.clone()), SckDocument::from(new));
        // Wrapping is randomized, so equal bytes are the same wrapping.
        let unchanged = doc! { "_id": old.id, "master_key": old.master_key, "bytes": old.bytes };
        let replaced = within(self.scks.replace_one(unchanged, &new).into_future()).await?;
        Ok(replaced.matched_count == 1)
    }

    async fn remove_sck(&self, id: SckId) -> Result<(), StoreError> {
        let one = doc! { "_id": id.to_string() };
        within(self.scks.delete_one(one).into_future()).await.map(drop)
    }

    async fn sck(&self, id: SckId) -> Result<Option<WrappedSck>, StoreError> {
        let key = id.to_string();
        let found = within(self.scks.find_one(doc! { "_id": &key }).into_future()).await?;
        let Some(document) = found else {
            return Ok(None);
        };
        let row = RowRef { table: "wrapped_scks", key: &key };
        Ok(Some(WrappedSck {
            id,
            account: row.parse(&document.account)?,
            master_key: row.parse(&document.master_key)?,
            bytes: document.bytes.bytes,
        }))
    }
}

#[async_trait]
impl KeyDatabase for MongoKeyDatabase {
    async fn ping(&self) -> Result<(), StoreError> {
        let admin = self.client.database("admin");
        let hello = within(admin.run_command(doc! { "hello": 1 }).into_future()).await?;
        // The driver connects to the members that the replica set names, whatever the URL names.
        let members = hello.get_array("hosts").into_iter().flatten().filter_map(Bson::as_str);
        let remote = members.filter(|_| !self.is_encrypted).find(|member| !is_local(member));
        remote.map_or(Ok(()), |member| Err(unavailable(Plaintext { member: member.to_owned() })))
    }

    async fn grants(&self) -> Result<KeyDatabaseGrants, StoreError> {
        let mut grants = KeyDatabaseGrants::default();
        for (collection, actions) in ACTIONS {
            for action in actions {
                if !self.may(*action, collection).await? {
                    grants.missing.push(format!("{} in {collection}", action.name()));
                }
            }
        }
        grants.changes_checkpoints = self.may(Action::Update, CHECKPOINTS).await?
            || self.may(Action::Remove, CHECKPOINTS).await?;
        Ok(grants)
    }

    async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let (sequence, line) = (checkpoint.tip.sequence, checkpoint.to_string());
        let document = CheckpointDocument { sequence, line };
        within(self.checkpoints.insert_one(&document).into_future()).await.map(drop)
    }

    async fn checkpoints(&self) -> Result<Vec<String>, StoreError> {
        let find = self.checkpoints.find(doc! {}).sort(doc! { "_id": 1 });
        let mut found = within(find.into_future()).await?;
        let mut lines = Vec::new();
        while within(found.advance()).await? {
            lines.push(found.deserialize_current().map_err(unavailable)?.line);
        }
        Ok(lines)
    }

    async fn pause_line(&self, name: &str) -> Result<Option<String>, StoreError> {
        let find = self.pause.find_one(doc! { "_id": name });
        Ok(within(find.into_future()).await?.map(|document| document.line))
    }

    async fn pause_lines(&self) -> Result<Vec<(String, String)>, StoreError> {
        let find = self.pause.find(doc! {}).sort(doc! { "_id": 1 });
        let mut found = within(find.into_future()).await?;
        let mut lines = Vec::new();
        while within(found.advance()).await? {
            let PauseDocument { name, line } = found.deserialize_current().map_err(unavailable)?;
            lines.push((name, line));
        }
        Ok(lines)
    }

    async fn put_pause_line(&self, name: &str, line: &str) -> Result<(), StoreError> {
        let (one, set) = (doc! { "_id": name }, doc! { "$set": { "line": line } });
        within(self.pause.update_one(one, set).upsert(true).into_future()).await.map(drop)
    }

    async fn scks_after(&self, id: &str, limit: u32) -> Result<Vec<(String, String)>, StoreError> {
        let listed = self.scks.clone_with_type::<ListedDocument>();
        let find = listed
            .find(doc! { "_id": { "$gt": id } })
            .sort(doc! { "_id": 1 })
            .projection(doc! { "account": 1 })
            .limit(limit.into());
        let mut found = within(find.into_future()).await?;
        let mut scks = Vec::new();
        while within(found.advance()).await? {
            let ListedDocument { id, account } =
                found.deserialize_current().map_err(unavailable)?;
            scks.push((id, account));
        }
        Ok(scks)
    }

    async fn owner(&self) -> Result<Option<KeyDatabaseOwner>, StoreError> {
        let find = self.owner.find_one(doc! { "_id": OWNER });
        let found = within(find.into_future()).await?;
        Ok(found.map(|OwnerDocument { identity, claim, .. }| KeyDatabaseOwner { identity, claim }))
    }

    async fn replace_owner(
        &self,
        old: Option<&KeyDatabaseOwner>,
        new: &KeyDatabaseOwner,
    ) -> Result<bool, StoreError> {
        let KeyDatabaseOwner { identity, claim } = new.clone();
        let Some(old) = old else {
            let first = OwnerDocument { id: OWNER.to_owned(), identity, claim };
            return match within(self.owner.insert_one(&first).into_future()).await {
                Ok(_inserted) => Ok(true),
                // Another server may have inserted it first.
                Err(error) => match self.owner().await? {
                    Some(_first) => Ok(false),
                    None => Err(error),
                },
            };
        };
        let unchanged = doc! { "_id": OWNER, "identity": &old.identity, "claim": &old.claim };
        let set = doc! { "$set": { "identity": identity, "claim": claim } };
        let update = self.owner.update_one(unchanged, set);
        Ok(within(update.into_future()).await?.matched_count == 1)
    }
}

/// A member of the replica set is on another machine, and the connection to it is not encrypted.
#[derive(Debug, thiserror::Error)]
#[error("add tls=true to key_database.url: the replica set has the member {member}")]
struct Plaintext {
    member: String,
}

fn is_local(member: &str) -> bool {
    match ServerAddress::parse(member) {
        Ok(ServerAddress::Tcp { host, .. }) => {
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        Ok(ServerAddress::Unix { .. }) => true,
        _ => false,
    }
}

/// Limits an operation to [`TIMEOUT`]: the driver has no deadline for a server that accepts a
/// connection and does not respond.
async fn within<T>(
    operation: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(TIMEOUT, operation).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(elapsed) => Err(unavailable(elapsed)),
    }
}
