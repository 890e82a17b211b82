// The little of Node.js that the client uses.
declare const process: { argv: string[]; exit(code: number): never };
