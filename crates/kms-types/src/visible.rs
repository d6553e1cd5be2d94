//! Characters that people paste without seeing them.

/// Removes what has no shape from a text: joiners, fillers, byte order marks and the selectors that
/// make an emoji of a digit. Marks of the direction of text are removed only around words, where
/// apps put them: between digits they change how an amount or an address reads.
#[must_use]
pub fn visible(text: &str) -> String {
    text.split_inclusive(char::is_whitespace).flat_map(word).collect()
}

fn word(word: &str) -> impl Iterator<Item = char> {
    let end = word.trim_end_matches(char::is_whitespace).len();
    let (word, space) = word.split_at(end);
    let hidden = |c: char| is_shapeless(c) || is_direction(c);
    word.trim_matches(hidden).chars().filter(|c| !is_shapeless(*c)).chain(space.chars())
}

fn is_shapeless(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2064}'
            | '\u{20e3}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
    )
}

/// Marks, embeddings and isolates. Overrides are not among them: without one the text would read
/// differently.
fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202c}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_removed() {
        for (pasted, seen) in [
            ("0.5\u{200b}", "0.5"),
            ("\u{feff}5\u{fe0f}\u{20e3} ETH\u{200d}", "5 ETH"),
            ("\u{2068}@bob\u{2069} \u{202a}0.5\u{202c}\n", "@bob 0.5\n"),
            ("\u{200b} \u{2060}", " "),
            ("", ""),
            // These change the order in which the characters are shown.
            ("1\u{200f}.5", "1\u{200f}.5"),
            ("\u{202e}bob", "\u{202e}bob"),
        ] {
            assert_eq!(visible(pasted), seen, "{pasted:?}");
        }
    }
}
