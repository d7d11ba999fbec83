"""The gains study: what each distiller does for the demo's student, over several seeds, by the official score."""
