/* What a port (avr_main.c, host.c, yours) must provide. Called from inside the core, never from an interrupt. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "reject.h"

/* The solenoid. A pulse that begins inside another one comes as one more `on`. part_id: 0 for a sweep, and for off. */
void port_gate(reject_t *r, bool is_on, uint32_t part_id);

/* The healthy output, which the machine's safety chain reads. Low means: not armed, or tripped. */
void port_healthy(reject_t *r, bool is_on);

/* The feed output: high while parts may be fed, low while the host asks for a controlled hold. Never the emergency stop. */
void port_feed(reject_t *r, bool may_feed);

/* A configuration was taken: keep it over a restart, for `reject_init`. */
void port_save(reject_t *r, const reject_config_t *config);

/* An event was logged. For simulators; a real port does nothing. */
void port_event(reject_t *r, const reject_event_t *event);

/* Bytes that can be sent now without waiting. Answers that find no room are dropped: the host asks again. */
uint8_t port_room(reject_t *r);
void port_send(reject_t *r, const uint8_t *bytes, uint8_t length);

#endif
