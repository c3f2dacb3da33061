//! "Did you mean ...?": the known word that is nearest to an unknown one.

/// How many pairs of words one check compares, so that a file with thousands of wrong names is still
/// checked at once; names found wrong after that get no suggestion.
pub(super) const COMPARISONS_MAX: u32 = 200_000;

/// Words longer than this are not compared.
const WORD_BYTES_MAX: usize = 64;

/// The nearest of `known`, if it is near enough to be a slip; `left` is how many more may be compared.
pub(super) fn nearest<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k str>,
    left: &mut u32,
) -> Option<&'k str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let plain = plain(word);
    // Two letters of which one is wrong are no slip.
    let allowed = if plain.len() < 3 { 0 } else { plain.len() / 3 };
    // A slip seldom hits the first letter, so among equals the one that shares it is nearer.
    let mut best: Option<((usize, bool), &str)> = None;
    for candidate in known {
        *left = left.checked_sub(1)?;
        let other = self::plain(candidate);
        let distance = distance(&plain, &other, allowed);
        let started = plain.len() >= 3 && (other.starts_with(&plain) || plain.starts_with(&other));
        let distance = match distance {
            Some(d) => d,
            None if started && other.len() >= 3 => allowed + 1,
            None => continue,
        };
        let rank = (distance, other.first() != plain.first());
        if best.is_none_or(|(r, _)| rank < r) {
            best = Some((rank, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Case and the kind of dash are the commonest slips.
fn plain(word: &str) -> Vec<u8> {
    word.bytes().map(|b| if b == b'-' { b'_' } else { b.to_ascii_lowercase() }).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, up to `allowed`.
fn distance(a: &[u8], b: &[u8], allowed: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > allowed || b.len() > WORD_BYTES_MAX {
        return None;
    }
    let mut before = [0usize; WORD_BYTES_MAX + 1];
    let mut last: [usize; WORD_BYTES_MAX + 1] = std::array::from_fn(|j| j);
    for (i, x) in a.iter().enumerate() {
        let mut row = [0usize; WORD_BYTES_MAX + 1];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut d = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                d = d.min(before[j - 1] + 1);
            }
            row[j + 1] = d;
        }
        if row[..=b.len()].iter().all(|d| *d > allowed) {
            return None;
        }
        (before, last) = (last, row);
    }
    Some(last[b.len()]).filter(|d| *d <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red when swaps cost two, the threshold is off, or the first candidate wins over the best.
    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["source", "session_ttl", "destination", "log", "rst_invalidate"];
        let near = |w| nearest(w, known, &mut 1000);
        assert_eq!(near("sorce"), Some("source"));
        assert_eq!(near("soruce"), Some("source"));
        assert_eq!(near("Session-TTL"), Some("session_ttl"));
        assert_eq!(near("rst-invalidate-session"), Some("rst_invalidate"));
        assert_eq!(near("lgo"), Some("log"));
        assert_eq!(nearest("htp", ["ftp", "http"], &mut 9), Some("http"));
        assert_eq!(near("colour"), None);
        assert_eq!(nearest("a", ["b"], &mut 9), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(100)), None);
    }

    /// Goes red when the bound on work is not kept.
    #[test]
    fn comparisons_end_at_their_bound() {
        let mut left = 2;
        assert_eq!(nearest("abc", ["x", "y", "abc"], &mut left), None);
        assert_eq!(left, 0);
    }
}
