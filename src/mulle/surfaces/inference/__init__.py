"""The inference plane over HTTP: lean, and only translating; the handler below is lifecycle/serving."""
