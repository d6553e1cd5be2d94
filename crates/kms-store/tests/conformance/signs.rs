//! The signs by which owners know the vault page.

use crate::fixtures::{Subject, insert, on_every_database};

on_every_database!(a_sign_never_changes);

async fn a_sign_never_changes(subject: Subject) {
    let database = &subject.database;
    let ann = insert(database, 1, "ann").await.id;
    let bob = insert(database, 2, "bob").await.id;
    // Two pages may ask for the first time at once.
    let ask = |sign: &str| database.sign_of(ann, sign.to_owned());
    let (one, two) = tokio::join!(ask("a"), ask("b"));
    let sign = one.unwrap();
    assert_eq!(two.unwrap(), sign);
    assert_eq!(database.sign_of(bob, "e".to_owned()).await.unwrap(), "e");
    assert_eq!(database.sign_of(ann, "f".to_owned()).await.unwrap(), sign);
}
