//! Made-up people, for environments that ask about somebody.

const FIRST: [&str; 40] = [
    "Anna", "Boris", "Clara", "David", "Elsa", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin",
    "Leon", "Marta", "Nils", "Olga", "Paul", "Rosa", "Simon", "Thea", "Victor", "Alma", "Bruno",
    "Celia", "Edgar", "Flora", "Gustav", "Helen", "Ivan", "Julia", "Kurt", "Laura", "Martin",
    "Nora", "Oscar", "Petra", "Robert", "Sonja", "Tom", "Vera", "Walter",
];
const LAST: [&str; 25] = [
    "Berg", "Cole", "Dahl", "Eaton", "Ford", "Gray", "Hale", "Iver", "Jung", "Kent", "Lane",
    "Marsh", "North", "Olsen", "Page", "Quinn", "Reed", "Stone", "Thorne", "Unger", "Vance",
    "West", "York", "Zeller", "Adler",
];

/// How many there are.
pub const PEOPLE: usize = FIRST.len() * LAST.len();

/// The name of one of them, below [`PEOPLE`].
#[must_use]
pub fn name(person: usize) -> String {
    format!("{} {}", FIRST[person % FIRST.len()], LAST[person / FIRST.len() % LAST.len()])
}
