"""The declaration of nets: operators, optimizers, schedules, hints for other libraries' names."""
