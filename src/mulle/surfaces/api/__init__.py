"""The control plane over HTTP: a JSON API and a plain status page over the same views as the command line."""
