/* Generated from firmware_bridge/registers.py by `python -m firmware_bridge.registers`. Do not edit. */
#ifndef REGISTERS_H
#define REGISTERS_H

#define MAP_ID 17746u
#define MAP_VERSION 26545u
#define MAP_RING 8u

/* box -> PLC */
#define BOX_BASE 0u
#define BOX_SIZE 13u
#define BOX_MAP_ID 0u
#define BOX_MAP_VERSION 1u
#define BOX_HEARTBEAT 2u
#define BOX_STATUS 3u
#define BOX_RESULT_SEQ 4u
#define BOX_PART_ID 5u
#define BOX_VERDICT 7u
#define BOX_REASON 8u
#define BOX_CONFIDENCE 9u
#define BOX_ACK_ECHO 10u
#define BOX_HOST_ECHO 11u
#define BOX_MAP_ID_END 12u

/* PLC -> box */
#define PLC_BASE 100u
#define PLC_SIZE 56u
#define PLC_MAP_ID 0u
#define PLC_HEARTBEAT 1u
#define PLC_CONTROL 2u
#define PLC_TRIGGER_SEQ 3u
#define PLC_PART_ID 4u
#define PLC_ENCODER 6u
#define PLC_RESULT_ACK 8u
#define PLC_RESULT_ANSWER 9u
#define PLC_MAP_VERSION 10u
#define PLC_BOOT_ID 11u
#define PLC_ENCODER_NOW 12u
#define PLC_OUTCOME_SEQ 14u
#define PLC_TRIGGERS 15u
#define PLC_OUTCOMES 31u
#define PLC_MAP_ID_END 55u

/* box -> PLC, our firmware only */
#define SETUP_BASE 200u
#define SETUP_SIZE 12u
#define SETUP_MAP_ID 0u
#define SETUP_MAP_VERSION 1u
#define SETUP_DECIDE_COUNTS 2u
#define SETUP_FIRE_COUNTS 3u
#define SETUP_PULSE_COUNTS 4u
#define SETUP_CONFIRM_COUNTS 5u
#define SETUP_WATCHDOG_MS 6u
#define SETUP_MAX_ON_MS 7u
#define SETUP_DEFAULT_VERDICT 8u
#define SETUP_DEBOUNCE_COUNTS 9u
#define SETUP_INPUTS_MASK 10u
#define SETUP_MAP_ID_END 11u

/* Box status */
#define BOX_STATUS_READY 1u
#define BOX_STATUS_BUSY 2u
#define BOX_STATUS_FAULT 4u
#define BOX_STATUS_ARMED 8u
#define BOX_STATUS_HOLD 16u

/* PLC control */
#define CONTROL_ENABLE 1u
#define CONTROL_TRIPPED 2u
#define CONTROL_HEALTHY 4u
#define CONTROL_GATE 8u
#define CONTROL_BIN_FULL 16u
#define CONTROL_AIR_LOW 32u
#define CONTROL_ENCODER_LOST 64u
#define CONTROL_BELT_REVERSED 128u

/* Verdict */
#define VERDICT_CODE_NONE 0u
#define VERDICT_CODE_ACCEPT 1u
#define VERDICT_CODE_REJECT 2u
#define VERDICT_CODE_UNSURE 3u

/* Result answer */
#define RESULT_NOT_TOLD 0u
#define RESULT_STORED 1u
#define RESULT_DUP 2u
#define RESULT_LATE 3u
#define RESULT_UNKNOWN 4u
#define RESULT_CONFLICT 5u

/* Outcome */
#define OUTCOME_PASSED 2u
#define OUTCOME_FIRED 3u
#define OUTCOME_DEFAULTED 4u
#define OUTCOME_CONFIRMED 5u
#define OUTCOME_UNCONFIRMED 6u
#define OUTCOME_WATCHDOG 7u
#define OUTCOME_OVERFLOW 8u
#define OUTCOME_INPUT 9u

#endif
