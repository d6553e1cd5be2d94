//! Authentication by an opening of the page. A handler states by a type for what the page must have
//! been opened.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use kms_core::audit::Caller;
use kms_core::launch::{self, Launch};
use kms_store::OpenedLaunch;
use kms_types::{AccountRef, ErrorCode, LaunchKey, Purpose, RecoveryId, Timestamp, TransferId};

use crate::clock;
use crate::error::{ApiError, Defect};
use crate::request_id::request_id;
use crate::state::State;

/// How long a key authorizes its purpose.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The caller whose bucket all requests of the page share.
const DOOR: &str = "the page";

/// The owner, on a page that was opened for `P`.
pub(super) struct Launched<P: Act> {
    pub(super) launch: Launch,
    /// What the page was opened for, of what there are several.
    pub(super) object: P::Object,
}

/// A kind of purpose.
pub(super) trait Act: 'static {
    /// What it is about.
    type Object;

    /// Returns the object, if the page was opened for this.
    fn object(purpose: Purpose) -> Option<Self::Object>;
}

/// Declares kinds of purposes.
macro_rules! acts {
    ($($(#[$doc:meta])* $name:ident($object:ty) = $pattern:pat => $value:expr;)*) => {
        $(
            $(#[$doc])*
            pub(super) enum $name {}

            impl Act for $name {
                type Object = $object;

                fn object(purpose: Purpose) -> Option<$object> {
                    match purpose {
                        $pattern => Some($value),
                        _ => None,
                    }
                }
            }
        )*
    };
}

acts! {
    /// To create a wallet.
    Create(()) = Purpose::NewWallet => ();
    /// To confirm a transfer.
    Confirm(TransferId) = Purpose::Confirm(id) => id;
    /// To replace a pending transfer.
    SpeedUp(TransferId) = Purpose::SpeedUp(id) => id;
    /// To confirm or replace a transfer.
    Pay(TransferId) = Purpose::Confirm(id) | Purpose::SpeedUp(id) => id;
    /// To change the password.
    Password(()) = Purpose::ChangePassword => ();
    /// To request a recovery.
    AskRecovery(()) = Purpose::RequestRecovery => ();
    /// To continue a recovery.
    Recover(RecoveryId) = Purpose::Recover(id) => id;
    /// To change the e-mail address.
    Mail(()) = Purpose::Email => ();
    /// To export the key.
    Export(()) = Purpose::Export => ();
    /// To raise a limit or lift a freeze.
    Lift(()) = Purpose::Lift => ();
}

/// Any purpose: what the owner may read.
pub(super) enum Any {}

impl Act for Any {
    type Object = ();

    fn object(_purpose: Purpose) -> Option<()> {
        Some(())
    }
}

impl<P: Act> Launched<P> {
    /// The account of the user who opened the page.
    pub(super) fn account(&self) -> AccountRef {
        AccountRef::Telegram(self.launch.user)
    }

    /// The caller in the audit, where the name of the launch leads to its proof.
    pub(super) fn caller(&self) -> Caller {
        let actor = format!("launch {}", self.launch.id);
        Caller::new(actor, request_id()).at_page()
    }
}

/// Until when the key of a launch is valid.
pub(super) fn expiry(launch: &OpenedLaunch) -> Timestamp {
    launch.opened_at.plus(LIFETIME)
}

async fn authorize(request: HttpRequest) -> Result<Launch, ApiError> {
    let unauthorized = || {
        let detail = "open the page again from the chat; it sends `Authorization: Launch <key>`";
        ApiError::refused(ErrorCode::Unauthorized, detail)
    };
    let state: &Data<State> = request.app_data().ok_or(Defect::NoState)?;
    let header = request.headers().get(AUTHORIZATION).ok_or_else(unauthorized)?;
    let text = header.to_str().map_err(|_secret| unauthorized())?;
    let key = text.strip_prefix("Launch ").ok_or_else(unauthorized)?;
    let key: LaunchKey = key.parse().map_err(|_secret| unauthorized())?;
    // Before the query, which forged keys must not multiply.
    state.reads.take(DOOR, None)?;
    let opened = state.database.launch_of_key(launch::hash_of(&key)).await?;
    let opened = opened.filter(|opened| clock::now() < expiry(opened)).ok_or_else(unauthorized)?;
    // Again: the operator may have removed the bot meanwhile.
    let launch = state.launches.verify_proof(&opened.proof).map_err(|_refused| unauthorized())?;
    state.reads.take(DOOR, Some(&AccountRef::Telegram(launch.user).to_string()))?;
    Ok(launch)
}

impl<P: Act> FromRequest for Launched<P> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let launch = authorize(request).await?;
            let object = P::object(launch.purpose).ok_or_else(|| {
                let detail = "the page was opened for something else; open it again from the chat";
                ApiError::refused(ErrorCode::Forbidden, detail)
            })?;
            Ok(Self { launch, object })
        })
    }
}
