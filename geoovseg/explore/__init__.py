"""A scene, its labels and its kept features in the browser: looked at, asked other words, saved."""
