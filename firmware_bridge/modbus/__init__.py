"""Modbus RTU, in both roles, and the register map."""
