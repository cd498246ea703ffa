"""Stand-ins for the managers of other projects, one package a project."""
