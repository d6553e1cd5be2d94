//! Addresses of other chains, as people paste them where an address of this one is wanted.

/// Chains with addresses like Ethereum's: id, short name (EIP-3770) and name.
const EVM: [(u64, &str, &str); 14] = [
    (1, "eth", "Ethereum"),
    (10, "oeth", "OP Mainnet"),
    (56, "bnb", "BNB Smart Chain"),
    (100, "gno", "Gnosis"),
    (137, "pol", "Polygon"),
    (137, "matic", "Polygon"),
    (324, "zksync", "ZKsync Era"),
    (8_453, "base", "Base"),
    (42_161, "arb1", "Arbitrum One"),
    (42_220, "celo", "Celo"),
    (43_114, "avax", "Avalanche"),
    (59_144, "linea", "Linea"),
    (534_352, "scr", "Scroll"),
    (11_155_111, "sep", "Sepolia"),
];

/// Schemes of payment links and namespaces of CAIP-10.
const SCHEMES: [(&str, &str); 18] = [
    ("bip122", BITCOIN),
    ("bitcoin", BITCOIN),
    ("bitcoincash", "Bitcoin Cash"),
    ("cardano", "Cardano"),
    ("cosmos", "Cosmos"),
    ("dogecoin", "Dogecoin"),
    ("litecoin", "Litecoin"),
    ("monero", "Monero"),
    ("near", "NEAR"),
    ("polkadot", "Polkadot"),
    ("ripple", "XRP Ledger"),
    ("solana", "Solana"),
    ("starknet", "Starknet"),
    ("stellar", "Stellar"),
    ("tezos", "Tezos"),
    ("ton", "TON"),
    ("tron", "TRON"),
    ("xrpl", "XRP Ledger"),
];

const BITCOIN: &str = "Bitcoin";

/// The longest username. What is shorter is not taken for an address without a mark of one.
const LONGEST_USERNAME: usize = 32;

/// The id of the chain with a short name.
pub(crate) fn id_of(short_name: &str) -> Option<u64> {
    let known = |(_, short, _): &&(u64, &str, &str)| short.eq_ignore_ascii_case(short_name);
    EVM.iter().find(known).map(|(id, _, _)| *id)
}

/// The name of the chain with an id.
pub(crate) fn name_of(chain_id: u64) -> Option<&'static str> {
    EVM.iter().find(|(id, _, _)| *id == chain_id).map(|(_, _, name)| *name)
}

/// The chain whose address a text looks like, if it is no chain with addresses like Ethereum's.
pub(crate) fn looks_like(text: &str) -> Option<&'static str> {
    if let Some((scheme, _)) = text.split_once(':') {
        let known = SCHEMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(scheme));
        return known.map(|(_, name)| *name);
    }
    let length = text.len();
    let starts = |prefixes: &[char]| text.starts_with(prefixes);
    if (26..=35).contains(&length) && starts(&['1', '3']) && is_base58(text) {
        return Some(BITCOIN);
    }
    if length <= LONGEST_USERNAME || !text.is_ascii() {
        return None;
    }
    if let Some((prefix, rest)) = text.split_once('1')
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        match prefix.to_ascii_lowercase().as_str() {
            "bc" | "tb" => return Some(BITCOIN),
            "ltc" => return Some("Litecoin"),
            "addr" => return Some("Cardano"),
            "cosmos" => return Some("Cosmos"),
            _ => {}
        }
    }
    let ton = ["EQ", "UQ", "kQ", "0Q"].iter().any(|prefix| text.starts_with(prefix));
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if length == 48 && ton && text.bytes().all(base64) {
        return Some("TON");
    }
    if !is_base58(text) {
        return None;
    }
    match (length, text.bytes().next()) {
        (34, Some(b'T')) => Some("TRON"),
        (33 | 34, Some(b'L' | b'M')) => Some("Litecoin"),
        (34, Some(b'D')) => Some("Dogecoin"),
        (33..=35, Some(b'r')) => Some("XRP Ledger"),
        (43 | 44, _) => Some("Solana"),
        (95 | 106, Some(b'4' | b'8')) => Some("Monero"),
        _ => None,
    }
}

/// Whether a text is in the alphabet of Bitcoin's addresses, with letters in both cases and a digit
/// among them.
fn is_base58(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() && !b"0OIl".contains(&b))
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && text.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_chains_are_recognised() {
        for (text, chain) in [
            ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", BITCOIN),
            ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", BITCOIN),
            ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", BITCOIN),
            ("BC1QAR0SRRR7XFKVY5L643LYDNW9RE59GTZZWF5MDQ", BITCOIN),
            ("bitcoin:1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2?amount=1", BITCOIN),
            ("ltc1qhzjptwpym9afcdjhs7jcz6fd0jma0l0rc0e5yr", "Litecoin"),
            ("DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L", "Dogecoin"),
            ("TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "TRON"),
            ("rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH", "XRP Ledger"),
            ("DRpbCBMxVnDK7maPM5tGv6MvB3v1sRMC86PZ8okm21hy", "Solana"),
            ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:7S3P4HxJpyyigGzodYwHt", "Solana"),
            ("EQDtFpEwcFAEcRe5mLVh2N6C0x-_hJEM7W61_JLnSF74p4q2", "TON"),
        ] {
            assert_eq!(looks_like(text), Some(chain), "{text}");
        }
        for text in ["bob", "TheLongestUsernameThatThereIs123", "base:0x12", "13", "", "bc1bob"] {
            assert_eq!(looks_like(text), None, "{text}");
        }
    }
}
