//! Columns, and those that most tables share.

/// One column of a table; priority 1 shows with `-o wide` only.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub r#type: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    pub priority: i32,
}

impl Column {
    pub(super) const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 0 }
    }

    pub(super) const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { r#type: "integer", ..Self::text(name, description) }
    }

    pub(super) const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self { r#type: "boolean", ..Self::text(name, description) }
    }

    /// For `-o wide` only.
    pub(super) const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    pub(super) fn is_name(&self) -> bool {
        self.name == NAME.name
    }
}

pub(super) const NAME: Column =
    Column { format: "name", ..Column::text("Name", "Name of the object, unique in its namespace.") };
pub(super) const AGE: Column = Column::text("Age", "Time since the server made the object.");
pub(super) const CONTAINERS: Column = Column::text("Containers", "Names of the containers in the pod template.").wide();
pub(super) const IMAGES: Column = Column::text("Images", "Images of the containers in the pod template.").wide();
pub(super) const SELECTOR: Column = Column::text("Selector", "Labels that select the pods.").wide();
