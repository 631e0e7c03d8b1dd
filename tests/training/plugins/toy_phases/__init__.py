"""An algorithm of a plug-in package with two phases."""
