//! "Did you mean …?"

/// The known names that come nearest to one that is not known: nearest first, at most three, none
/// that would only confuse.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let mut close: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| *edits <= (name.len().max(candidate.len()) / 3).max(1))
        .collect();
    close.sort_unstable();
    close.dedup();
    close.into_iter().map(|(_, candidate)| candidate).take(3).collect()
}

/// Edits between the two, a swap of neighbours being one; a name that only adds to the other, as
/// `fetch_page` does to `fetch`, is one edit away.
fn distance(a: &str, b: &str) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if short.len() >= 3 && long.starts_with(short) && long != short {
        return 1;
    }
    strsim::damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_a_stranger_finds_none() {
        let known = ["fetch", "parse", "patch", "extract_links"];
        assert_eq!(nearest("fecth", known), ["fetch", "patch"][..1]);
        assert_eq!(nearest("extract_link", known), ["extract_links"]);
        assert_eq!(nearest("Fetch", known), ["fetch"]);
        assert_eq!(nearest("fetch_page", known), ["fetch"]);
        assert_eq!(nearest("translate", known), [""; 0]);
    }
}
