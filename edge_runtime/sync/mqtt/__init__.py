"""Connections to an MQTT broker that are kept up."""
