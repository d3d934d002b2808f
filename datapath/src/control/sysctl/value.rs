//! Values of settings: what a kind takes, and how text becomes a value.
//!
//! Invariant: a [`Value`] made by [`Kind::read`] is within its kind's range, and reading what it prints gives it again.
//! Numbers are read as the kernel reads them: decimal, `0x` for hexadecimal, a leading 0 for octal.

use std::fmt;

/// Highest CPU that a list may name; as many as a `cpu_set_t` holds.
const CPU_MAX: u32 = 1023;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within these bounds.
    Number {
        /// Least.
        least: i64,
        /// Greatest.
        most: i64,
    },
    /// A power of two.
    PowerOfTwo {
        /// Greatest.
        most: i64,
    },
    /// A threshold and a period, the threshold below the period unless that is 0.
    Pair,
    /// A list of CPUs.
    Cpus,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One number.
    Number(i64),
    /// Two numbers.
    Pair(i64, i64),
    /// A list of CPUs as it was written.
    Cpus(String),
}

impl Value {
    /// The number that it is; 0 for what is none.
    pub fn number(&self) -> i64 {
        match self {
            Value::Number(number) => *number,
            Value::Pair(..) | Value::Cpus(_) => 0,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Pair(first, second) => write!(f, "{first}\t{second}"),
            Value::Cpus(list) => f.write_str(list),
        }
    }
}

impl fmt::Display for Kind {
    /// What it takes, for a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Number { least, most } => write!(f, "{least} to {most}"),
            Kind::PowerOfTwo { most } => write!(f, "a power of two, 1 to {most}"),
            Kind::Pair => f.write_str("two numbers, a threshold and a period that is 0 or greater, as in \"3 50\""),
            Kind::Cpus => f.write_str("a list of CPUs, as in \"0-3,8\", or nothing"),
        }
    }
}

impl Kind {
    /// Reads a value; none if it is not of this kind.
    pub fn read(self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self {
            Kind::Number { least, most } => number(text).filter(|n| (least..=most).contains(n)).map(Value::Number),
            Kind::PowerOfTwo { most } => {
                number(text).filter(|n| (1..=most).contains(n) && n & (n - 1) == 0).map(Value::Number)
            }
            Kind::Pair => {
                let numbers: Vec<i64> = text.split_whitespace().map(number).collect::<Option<_>>()?;
                let [threshold, period] = numbers[..] else { return None };
                let range = 0..=i64::from(i32::MAX);
                let fits = range.contains(&threshold) && range.contains(&period) && (period == 0 || threshold < period);
                fits.then_some(Value::Pair(threshold, period))
            }
            Kind::Cpus => is_cpu_list(text).then(|| Value::Cpus(text.to_owned())),
        }
    }
}

/// A number as C writes it.
fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        _ => (digits, 10),
    };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// Is this a list of CPUs: nothing, `all`, or single ones and ranges (`2`, `0-3`, `0-7:1/2`) with commas between?
fn is_cpu_list(text: &str) -> bool {
    let cpu = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|cpu: &u32| digits && *cpu <= CPU_MAX)
    };
    let stride = |text: &str| {
        text.split_once('/')
            .and_then(|(used, group)| Some((cpu(used)?, cpu(group)?)))
            .is_some_and(|(used, group)| used >= 1 && used <= group)
    };
    let part = |part: &str| {
        let (range, rule) = part.split_once(':').map_or((part, None), |(range, rule)| (range, Some(rule)));
        let is_range = match range.split_once('-') {
            Some((first, last)) => cpu(first).zip(cpu(last)).is_some_and(|(first, last)| first <= last),
            None => range == "all" || (cpu(range).is_some() && rule.is_none()),
        };
        is_range && rule.is_none_or(stride)
    };
    text.is_empty() || text.split(',').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are the kernel's: whoever writes 0x10 or 010 into /proc today gets the same here.
    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        let read = |text| Kind::Number { least: -8, most: 100 }.read(text);
        for (text, number) in [("0", 0), (" 7\n", 7), ("-8", -8), ("0x10", 16), ("010", 8), ("100", 100)] {
            assert_eq!(read(text), Some(Value::Number(number)), "{text:?}");
        }
        for text in ["", "-9", "101", "1.5", "one", "+1", "0x", "09", "--1", "1 2", "99999999999999999999", "-"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    /// Ports come in powers of two, and a threshold that its period never reaches is refused.
    #[test]
    fn kinds_have_their_own_rules() {
        let ports = Kind::PowerOfTwo { most: 64 };
        for n in -1..=130 {
            let right = [1, 2, 4, 8, 16, 32, 64].contains(&n);
            assert_eq!(ports.read(&n.to_string()).is_some(), right, "{n}");
        }
        assert_eq!(Kind::Pair.read("3 50"), Some(Value::Pair(3, 50)));
        assert_eq!(Kind::Pair.read(" 3\t50 ").unwrap().to_string(), "3\t50");
        assert_eq!(Kind::Pair.read("7 0"), Some(Value::Pair(7, 0)), "a period of 0: once only");
        for text in ["", "3", "50 50", "51 50", "-1 5", "1 -5", "1 2 3", "a b", "1,2"] {
            assert_eq!(Kind::Pair.read(text), None, "{text:?}");
        }
    }

    /// A list of CPUs is one that the kernel would read.
    #[test]
    fn lists_of_cpus() {
        for text in ["", "0", "0-3", "0,2-7:1/2", "all", "all:1/2", "1023"] {
            assert_eq!(Kind::Cpus.read(text), Some(Value::Cpus(text.into())), "{text:?}");
        }
        for text in ["3-1", "0-", ",", "0,,1", "a", "0:1/2", "0-3:2/1", "0-3:0/2", "1024", "+1", "0-3:1"] {
            assert_eq!(Kind::Cpus.read(text), None, "{text:?}");
        }
    }
}
