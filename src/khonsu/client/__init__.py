"""The client: everything a control plane can be asked, over any transport."""
