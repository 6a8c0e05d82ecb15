"""The course's layers as `check_layer` sees them: inputs, a student's runs, and usual mistakes."""
