// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// A token for tests that can be told to misbehave in the ways that tokens do.
/// Anybody may mint, change its manners and its decimals: never deploy it where money is real.
contract TestToken {
    enum Manners {
        Plain,
        /// transfer answers nothing, as USDT's does.
        Silent,
        /// transfer moves nothing and answers false instead of reverting.
        False,
        /// A tenth of each transfer is kept from the receiver.
        Fee,
        /// transfer reverts.
        Refusing,
        /// transfer answers true, moves nothing and logs nothing.
        Lying,
        /// transfer moves nothing, and a contract of its own logs that it did.
        Forging,
        /// transfer takes all gas that it is given.
        Greedy,
        /// transfer calls the receiver before it moves anything.
        Calling
    }

    string public symbol;
    uint8 public decimals;
    Manners public manners;
    mapping(address => uint256) public balanceOf;
    Forger private forger = new Forger();

    event Transfer(address indexed from, address indexed to, uint256 value);

    constructor(string memory symbol_, uint8 decimals_) {
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function setManners(Manners manners_) external {
        manners = manners_;
    }

    function setDecimals(uint8 decimals_) external {
        decimals = decimals_;
    }

    /// Logs a transfer that never was, as only the token itself can.
    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        if (manners == Manners.False) return false;
        if (manners == Manners.Lying) return true;
        if (manners == Manners.Refusing) revert("the token is closed");
        if (manners == Manners.Greedy) while (true) {}
        if (manners == Manners.Forging) {
            forger.log(msg.sender, to, value);
            return true;
        }
        if (manners == Manners.Calling) {
            (bool done, ) = to.call("");
            require(done, "the receiver refused");
        }
        uint256 kept = manners == Manners.Fee ? value / 10 : 0;
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value - kept;
        emit Transfer(msg.sender, to, value - kept);
        if (kept > 0) emit Transfer(msg.sender, address(this), kept);
        if (manners == Manners.Silent) {
            assembly {
                return(0, 0)
            }
        }
        return true;
    }
}

/// Logs what a token would log, from another address.
contract Forger {
    event Transfer(address indexed from, address indexed to, uint256 value);

    function log(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }
}

/// What is called of Multicall3, which has code at one address on most chains.
contract Multicall {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            (results[i].success, results[i].returnData) = calls[i].target.call(calls[i].callData);
            require(results[i].success || calls[i].allowFailure, "Multicall3: call failed");
        }
    }

    function getEthBalance(address of_) external view returns (uint256) {
        return of_.balance;
    }
}
