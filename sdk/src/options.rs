//! A service's options, as a scheduler reads them.

use core::ops::RangeInclusive;

/// Options: lines `name=value`, in the order of their names.
///
/// ```
/// use xvs_sdk::Options;
///
/// let options = Options::new(b"limit=3\nzone=a\n");
/// assert_eq!(options.get("zone"), Some(&b"a"[..]));
/// assert_eq!(options.number("limit", 1..=100, "`limit` is a number from 1 to 100"), Ok(Some(3)));
/// assert_eq!(options.only(&["zone"], "the only option is `zone`"), Err("the only option is `zone`"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Over the text that [`configure`](crate::Scheduler::configure) gets.
    pub const fn new(text: &'a [u8]) -> Options<'a> {
        Options(text)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
            let end = line.iter().position(|&byte| byte == b'=');
            end.map_or((line, &line[line.len()..]), |end| (&line[..end], &line[end + 1..]))
        })
    }

    /// The value of an option, if it is given.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of an option that is a whole number, if it is given.
    ///
    /// # Errors
    /// `otherwise`, if it is no number or not within the range.
    pub fn number(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
        otherwise: &'static str,
    ) -> Result<Option<i64>, &'static str> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => decimal(value).filter(|number| range.contains(number)).map(Some).ok_or(otherwise),
        }
    }

    /// Are there no options but these?
    ///
    /// # Errors
    /// `otherwise`, if there is another one: mistyped, most likely.
    pub fn only(&self, names: &[&str], otherwise: &'static str) -> Result<(), &'static str> {
        let known = |key: &[u8]| names.iter().any(|name| name.as_bytes() == key);
        if self.iter().all(|(key, _)| known(key)) {
            Ok(())
        } else {
            Err(otherwise)
        }
    }
}

/// A whole number in decimal digits, perhaps with a minus. (`str::parse` would bring the check for UTF-8 along.)
fn decimal(text: &[u8]) -> Option<i64> {
    let (digits, sign) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, -1),
        None => (text, 1),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i64, |number, &digit| {
        let digit = if digit.is_ascii_digit() { i64::from(digit - b'0') * sign } else { return None };
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values may hold `=`, may be empty, and the last line may end without a newline.
    #[test]
    fn lines_are_names_and_values() {
        let options = Options::new(b"a=1=2\nb=\nc");
        assert_eq!(options.get("a"), Some(&b"1=2"[..]));
        assert_eq!(options.get("b"), Some(&b""[..]));
        assert_eq!(options.get("c"), Some(&b""[..]));
        assert_eq!(options.get("d"), None);
        assert_eq!(Options::new(b"").iter().count(), 0);
    }

    /// What is no number must be refused and not taken for another one.
    #[test]
    fn numbers_are_whole_and_in_range() {
        let number = |text: &'static str| Options::new(text.as_bytes()).number("n", i64::MIN..=i64::MAX, "no");
        assert_eq!(number("n=-12"), Ok(Some(-12)));
        assert_eq!(number("n=9223372036854775807"), Ok(Some(i64::MAX)));
        assert_eq!(number("n=-9223372036854775808"), Ok(Some(i64::MIN)));
        for wrong in ["n=9223372036854775808", "n=", "n=-", "n=+1", "n=1.5", "n= 1", "n=x"] {
            assert_eq!(number(wrong), Err("no"), "{}", wrong);
        }
        assert_eq!(number("m=1"), Ok(None));
        assert_eq!(Options::new(b"n=101").number("n", 1..=100, "no"), Err("no"));
    }
}
