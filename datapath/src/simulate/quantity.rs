//! Times, sizes and their distributions, as people write them: `8s`, `20k`, `exp:8s`, `lognormal:2s/1.2`.
//!
//! Invariant: what is read is finite, not negative and within a day's or a terabyte's bounds, so that no sum of it
//! overflows. A mistake is told in a sentence with the words that were read.

use crate::config::problem::{did_you_mean, quote};

use super::random::Random;

/// Longest time that may be written, in seconds: a week.
const SECONDS_MAX: f64 = 7.0 * 86_400.0;
/// Largest size, in bytes.
const BYTES_MAX: f64 = 1e12;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds; `ms`, `s`, `m` and `h` may follow.
    Time,
    /// Bytes; `k`, `M` and `G` may follow.
    Size,
}

impl Unit {
    /// Reads one number.
    ///
    /// # Errors
    /// It is none: a sentence.
    pub(super) fn read(self, text: &str) -> Result<f64, String> {
        let (suffixes, most, example): (&[(&str, f64)], f64, &str) = match self {
            Unit::Time => {
                (&[("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)], SECONDS_MAX, "a time, as in 500ms, 8s or 2m")
            }
            Unit::Size => (&[("k", 1e3), ("M", 1e6), ("G", 1e9)], BYTES_MAX, "a size in bytes, as in 800 or 20k"),
        };
        let (digits, factor) = suffixes
            .iter()
            .find_map(|&(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))
            .unwrap_or((text, 1.0));
        let value = number(digits).ok_or_else(|| format!("{} is not {example}", quote(text)))? * factor;
        if value > most {
            return Err(format!("{} is too much: at most {most} {}", quote(text), self.plain()));
        }
        Ok(value)
    }

    fn plain(self) -> &'static str {
        match self {
            Unit::Time => "seconds",
            Unit::Size => "bytes",
        }
    }
}

/// A plain number that is finite and not negative.
pub(super) fn number(text: &str) -> Option<f64> {
    // `parse` also takes "inf", "nan" and "infinity".
    let plain = text.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    text.parse().ok().filter(|value: &f64| plain && value.is_finite())
}

/// How a quantity is distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Distribution {
    /// Always the same.
    Fixed(f64),
    /// Anything between two bounds.
    Uniform(f64, f64),
    /// Exponential, by its mean.
    Exponential(f64),
    /// Log-normal, by its median and the deviation of its logarithm.
    LogNormal(f64, f64),
    /// Pareto, by its least value and its shape: the smaller the shape, the heavier the tail.
    Pareto(f64, f64),
}

impl Distribution {
    const NAMES: [&'static str; 5] = ["fixed", "uniform", "exp", "lognormal", "pareto"];

    /// Reads `NAME:VALUE` or `NAME:VALUE/VALUE`; a value alone is fixed.
    ///
    /// # Errors
    /// It is none: a sentence.
    pub(super) fn read(text: &str, unit: Unit) -> Result<Self, String> {
        let Some((name, values)) = text.split_once(':') else { return unit.read(text).map(Distribution::Fixed) };
        let parts: Vec<&str> = values.split('/').collect();
        let one = |meaning: &str| match parts[..] {
            [value] => unit.read(value),
            _ => Err(format!("{} takes one value, {meaning}", quote(name))),
        };
        let shape = |meaning: &str, example: &str| match parts[..] {
            [value, shape] => {
                let shape = number(shape).filter(|&shape| shape > 0.0 && shape <= 100.0);
                let shape = shape.ok_or_else(|| format!("{} needs {meaning}, above 0 and at most 100", quote(text)))?;
                Ok((unit.read(value)?, shape))
            }
            _ => Err(format!("{} takes two values, {example}", quote(name))),
        };
        match name {
            "fixed" => one("as in fixed:8s").map(Distribution::Fixed),
            "exp" => one("its mean, as in exp:8s").map(Distribution::Exponential),
            "uniform" => match parts[..] {
                [low, high] => {
                    let (low, high) = (unit.read(low)?, unit.read(high)?);
                    if low > high {
                        return Err(format!("{} has its bounds the wrong way round", quote(text)));
                    }
                    Ok(Distribution::Uniform(low, high))
                }
                _ => Err(format!("{} takes two bounds, as in uniform:1s/5s", quote(name))),
            },
            "lognormal" => {
                let (median, sigma) = shape("a deviation", "median and deviation, as in lognormal:2s/1.2")?;
                Ok(Distribution::LogNormal(median, sigma))
            }
            "pareto" => {
                let (least, alpha) = shape("a shape", "least value and shape, as in pareto:1s/1.5")?;
                Ok(Distribution::Pareto(least, alpha))
            }
            _ => Err(format!(
                "there is no distribution {}{}: fixed, uniform, exp, lognormal and pareto are",
                quote(name),
                did_you_mean(name, &Self::NAMES)
            )),
        }
    }

    /// Draws a value: not negative, and never beyond what a unit may be.
    pub(super) fn draw(&self, random: &mut Random) -> f64 {
        let value = match *self {
            Distribution::Fixed(value) => value,
            Distribution::Uniform(low, high) => low + (high - low) * random.unit(),
            Distribution::Exponential(mean) => -mean * random.unit().ln(),
            Distribution::LogNormal(median, sigma) => {
                // Box and Muller's way to a normal number.
                let radius = (-2.0 * random.unit().ln()).sqrt();
                median * (sigma * radius * (std::f64::consts::TAU * random.unit()).cos()).exp()
            }
            Distribution::Pareto(least, alpha) => least / random.unit().powf(1.0 / alpha),
        };
        value.clamp(0.0, BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the handbook is read as it is meant.
    #[test]
    fn quantities_are_read() {
        assert_eq!(Unit::Time.read("500ms"), Ok(0.5));
        assert_eq!(Unit::Time.read("2m"), Ok(120.0));
        assert_eq!(Unit::Size.read("20k"), Ok(20_000.0));
        assert_eq!(Distribution::read("8s", Unit::Time), Ok(Distribution::Fixed(8.0)));
        assert_eq!(Distribution::read("pareto:1s/1.5", Unit::Time), Ok(Distribution::Pareto(1.0, 1.5)));
    }

    /// Mistakes are told, whatever they are, and none gets through as an odd number.
    #[test]
    fn mistakes_are_sentences() {
        for wrong in
            ["", "s", "-1s", "inf", "nan", "1e400", "8x", "exp:", "exp:1s/2", "pareto:1s", "pareto:1s/0", "foo:1"]
        {
            let told = Distribution::read(wrong, Unit::Time).unwrap_err();
            assert!(told.len() > 15, "{wrong}: {told}");
        }
        assert!(Distribution::read("lognorml:1s/1", Unit::Time).unwrap_err().contains("did you mean"));
    }

    /// Draws have the mean that the distribution promises.
    #[test]
    fn draws_have_their_mean() {
        let cases = [("fixed:8s", 8.0), ("exp:8s", 8.0), ("uniform:2s/6s", 4.0), ("pareto:1s/3", 1.5)];
        for (text, mean) in cases {
            let distribution = Distribution::read(text, Unit::Time).unwrap();
            let mut random = Random::new(3, 3);
            let sum: f64 = (0..200_000).map(|_| distribution.draw(&mut random)).sum();
            assert!((sum / 200_000.0 / mean - 1.0).abs() < 0.02, "{text}: {}", sum / 200_000.0);
        }
    }
}
