// Import first. @medplum/core names the WebSocket class when it is loaded; Node has that global only from 22 on.
globalThis.WebSocket ??= class WebSocket extends EventTarget {};
