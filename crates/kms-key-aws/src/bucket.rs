//! An S3 bucket to which texts are added, one object each, and never replaced.

use std::fmt;
use std::str::FromStr;

use aws_config::SdkConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use sha2::{Digest, Sha256};

use crate::from_environment;
use crate::s3::{Call, S3, S3Error, children, parse, text};

/// How many objects are read at once.
const READS: usize = 32;
/// More of an object is not read: the texts are shorter.
const MAX_LENGTH: usize = 1_024;
/// The object that shows that the bucket can be written to.
const PROBE: &str = "probe";

/// `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    bucket: String,
    prefix: String,
}

/// The text is not a [`BucketPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected s3://BUCKET/PREFIX, with a-z, 0-9 and - in BUCKET, and A-Z, a-z, 0-9, -, _ and / in \
     PREFIX"
)]
pub struct BucketPathFormat;

/// The objects of a bucket whose names begin with a prefix.
#[derive(Clone, Debug)]
pub struct Bucket {
    s3: S3,
    path: BucketPath,
}

/// All objects, with every version that was written, also of those that were deleted since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The texts, in the order of their names.
    pub texts: Vec<String>,
    /// The names that a delete marker hides from readers who do not ask for versions.
    pub deleted: Vec<String>,
}

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A call failed.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// What is written can be deleted.
    #[error(
        "the bucket does not lock its objects; set object lock with a default retention in \
         compliance mode"
    )]
    Unlocked,
}

/// A version of an object.
#[derive(Debug, Default)]
struct Version {
    key: String,
    id: String,
    size: String,
}

/// What one call lists.
#[derive(Debug, Default)]
struct Page {
    versions: Vec<Version>,
    deleted: Vec<String>,
    next: Option<(String, String)>,
}

impl Bucket {
    /// Uses a bucket with the region and credentials that AWS' own tools would use. Calls no
    /// service.
    ///
    /// # Errors
    /// When there are none.
    pub async fn open(path: BucketPath) -> Result<Self, BucketError> {
        Self::new(path, &from_environment(None).await)
    }

    /// Uses a bucket with this region and these credentials.
    ///
    /// # Errors
    /// When the configuration has none.
    pub fn new(path: BucketPath, aws: &SdkConfig) -> Result<Self, BucketError> {
        Ok(Self { s3: S3::new(&path.bucket, aws)?, path })
    }

    /// Adds an object, and succeeds if there is one of this name, as after an attempt whose answer
    /// was lost. So no other party must be able to predict the name.
    ///
    /// # Errors
    /// When S3 does not answer or refuses the call.
    pub async fn add(&self, name: &str, text: &str) -> Result<(), BucketError> {
        let put = Call {
            name: "PutObject",
            method: Method::PUT,
            key: &self.path.key(name),
            query: Vec::new(),
            headers: vec![
                ("if-none-match", "*".to_owned()),
                ("content-type", "text/plain".to_owned()),
                ("x-amz-server-side-encryption", "AES256".to_owned()),
                // Object lock requires a checksum, and its name as AWS' own tools send it.
                ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
                ("x-amz-checksum-sha256", STANDARD.encode(Sha256::digest(text))),
            ],
            body: text.as_bytes(),
        };
        match self.s3.call(&put).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("PreconditionFailed") => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds an object without a text, of which there is one at most, and checks that the bucket
    /// locks its objects.
    ///
    /// # Errors
    /// When S3 does not answer, refuses a call, or the bucket does not lock its objects.
    pub async fn check(&self) -> Result<(), BucketError> {
        // S3 checks the permission before the condition that there is none yet.
        self.add(PROBE, "").await?;
        let call = "GetObjectLockConfiguration";
        let answer = match self.get(call, "", vec![("object-lock", String::new())]).await {
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => {
                return Err(BucketError::Unlocked);
            }
            answer => answer?,
        };
        let (mut is_enabled, mut is_compliance) = (false, false);
        parse(call, &answer, |name, element| match name {
            "ObjectLockEnabled" => {
                is_enabled = text(element)? == "Enabled";
                Ok(())
            }
            _ => children(element, |_retention, element| {
                children(element, |name, element| {
                    is_compliance |= name == "Mode" && text(element)? == "COMPLIANCE";
                    Ok(())
                })
            }),
        })?;
        if is_enabled && is_compliance { Ok(()) } else { Err(BucketError::Unlocked) }
    }

    /// Reads all objects.
    ///
    /// # Errors
    /// When S3 does not answer or refuses a call.
    pub async fn read(&self) -> Result<Contents, BucketError> {
        let mut page = self.page(None).await?;
        let (mut versions, mut deleted) = (page.versions, page.deleted);
        while let Some(next) = page.next {
            page = self.page(Some(next)).await?;
            versions.append(&mut page.versions);
            deleted.append(&mut page.deleted);
        }
        versions.retain(|version| version.size != "0");
        let texts = stream::iter(versions).map(|version| self.text(version)).buffered(READS);
        Ok(Contents { texts: texts.try_collect().await?, deleted })
    }

    async fn page(&self, after: Option<(String, String)>) -> Result<Page, S3Error> {
        let mut query = vec![("prefix", self.path.key("")), ("versions", String::new())];
        if let Some((key, id)) = after {
            query.extend([("key-marker", key), ("version-id-marker", id)]);
        }
        let call = "ListObjectVersions";
        let answer = self.get(call, "", query).await?;
        let (mut page, mut next) = (Page::default(), <(String, String)>::default());
        parse(call, &answer, |name, element| {
            match name {
                "NextKeyMarker" => next.0 = text(element)?,
                "NextVersionIdMarker" => next.1 = text(element)?,
                "Version" | "DeleteMarker" => {
                    let mut version = Version::default();
                    children(element, |name, element| {
                        match name {
                            "Key" => version.key = text(element)?,
                            "VersionId" => version.id = text(element)?,
                            "Size" => version.size = text(element)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    match name {
                        "Version" => page.versions.push(version),
                        _ => page.deleted.push(version.key),
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        page.next = (!next.0.is_empty()).then_some(next);
        Ok(page)
    }

    async fn text(&self, version: Version) -> Result<String, S3Error> {
        let query = vec![("versionId", version.id)];
        let body = self.get("GetObject", &version.key, query).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(
        &self,
        name: &'static str,
        key: &str,
        query: Vec<(&'static str, String)>,
    ) -> Result<Vec<u8>, S3Error> {
        let headers = match key {
            "" => Vec::new(),
            _ => vec![("range", format!("bytes=0-{}", MAX_LENGTH - 1))],
        };
        let call = Call { name, method: Method::GET, key, query, headers, body: &[] };
        self.s3.call(&call).await
    }
}

impl BucketPath {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

impl FromStr for BucketPath {
    type Err = BucketPathFormat;

    fn from_str(text: &str) -> Result<Self, BucketPathFormat> {
        let path = text.strip_prefix("s3://").and_then(|path| path.split_once('/'));
        let (bucket, prefix) = path.ok_or(BucketPathFormat)?;
        let is_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_prefix = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let is_right = (3..=63).contains(&bucket.len())
            && bucket.chars().all(is_bucket)
            && !bucket.starts_with('-')
            && !bucket.ends_with('-')
            && prefix.len() <= 512
            && prefix.split('/').all(|part| !part.is_empty() && part.chars().all(is_prefix));
        if !is_right {
            return Err(BucketPathFormat);
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_bucket_and_a_prefix() {
        for good in ["s3://kms/checkpoints", "s3://a-1/b/C_d-2"] {
            assert_eq!(good.parse::<BucketPath>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "s3://kms",
            "s3://kms/",
            "s3:///checkpoints",
            "s3://kms/checkpoints/",
            "s3://kms//checkpoints",
            "s3://kms/../other",
            "s3://Kms/checkpoints",
            "s3://-kms/checkpoints",
            "s3://km/checkpoints",
            "s3://kms.example/checkpoints",
            "S3://kms/checkpoints",
            "https://kms/checkpoints",
            "s3://kms/check points",
            "s3://kms/checkpoints?versionId=1",
        ] {
            assert_eq!(bad.parse::<BucketPath>(), Err(BucketPathFormat), "{bad}");
        }
    }
}
