//! One-step physics: laws of the form c = a · b, each quantity asked from the two others.

use super::relation::Law::{Product, Sum};
use super::relation::Relation;
use super::relation::Term::{A, B, C};
use super::relation::numbers;
use super::topic::Topic;

const LAWS: [Relation; 10] = [
    Relation {
        name: "speed",
        law: Product,
        a: numbers(1, 2..=12),
        b: numbers(1, 2..=10),
        asks: &[
            (
                "A car drives at {a} metres per second for {b} seconds. How many metres does it go?",
                C,
            ),
            (
                "A runner covers {c} metres in {b} seconds. What is the speed in metres per second?",
                A,
            ),
            (
                "A ball rolls at {a} metres per second. How many seconds does it need for {c} metres?",
                B,
            ),
        ],
    },
    Relation {
        name: "force",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("What force in newtons gives a mass of {a} kg an acceleration of {b} m/s²?", C),
            (
                "A force of {c} N gives a body an acceleration of {b} m/s². What is its mass in kg?",
                A,
            ),
            ("A force of {c} N acts on a mass of {a} kg. What is the acceleration in m/s²?", B),
        ],
    },
    Relation {
        name: "voltage",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            (
                "A current of {a} A flows through a resistance of {b} ohms. What is the voltage in volts?",
                C,
            ),
            ("A voltage of {c} V lies across {b} ohms. What is the current in amperes?", A),
            ("A voltage of {c} V drives a current of {a} A. What is the resistance in ohms?", B),
        ],
    },
    Relation {
        name: "work",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("A force of {a} N moves a box by {b} m. How much work in joules does it do?", C),
            ("Moving a box by {b} m takes {c} J of work. What is the force in newtons?", A),
            ("A force of {a} N does {c} J of work. Over how many metres does it act?", B),
        ],
    },
    Relation {
        name: "power",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("A motor of {a} W runs for {b} s. How much energy in joules does it use?", C),
            ("A lamp uses {c} J in {b} s. What is its power in watts?", A),
            ("A heater of {a} W gives off {c} J. How many seconds does it run?", B),
        ],
    },
    Relation {
        name: "density",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            (
                "A liquid has a density of {a} grams per millilitre. How many grams are {b} millilitres of it?",
                C,
            ),
            ("A stone of {c} g has a volume of {b} cm³. What is its density in g/cm³?", A),
            ("A metal has a density of {a} g/cm³. What is the volume in cm³ of {c} g of it?", B),
        ],
    },
    Relation {
        name: "momentum",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("What is the momentum in kg m/s of a mass of {a} kg that moves at {b} m/s?", C),
            ("A body moving at {b} m/s has a momentum of {c} kg m/s. What is its mass in kg?", A),
            ("A body of {a} kg has a momentum of {c} kg m/s. What is its speed in m/s?", B),
        ],
    },
    Relation {
        name: "pressure",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("A pressure of {a} Pa acts on an area of {b} m². What is the force in newtons?", C),
            ("A force of {c} N acts on an area of {b} m². What is the pressure in pascals?", A),
        ],
    },
    Relation {
        name: "charge",
        law: Product,
        a: numbers(1, 2..=10),
        b: numbers(1, 2..=10),
        asks: &[
            ("A current of {a} A flows for {b} s. How much charge in coulombs does it carry?", C),
            ("A charge of {c} C flows in {b} s. What is the current in amperes?", A),
        ],
    },
    Relation {
        name: "kelvin",
        law: Sum,
        a: numbers(273, 1..=1),
        b: numbers(1, 1..=60),
        asks: &[
            (
                "Add {a} to turn degrees Celsius into kelvins. What is {b} degrees Celsius in kelvins?",
                C,
            ),
            (
                "Subtract {a} to turn kelvins into degrees Celsius. What is {c} K in degrees Celsius?",
                B,
            ),
        ],
    },
];

pub(super) fn topic() -> Topic {
    let facts = LAWS.iter().flat_map(|law| law.facts("natural")).collect();
    Topic { name: "physics", questions: 302, facts }
}
